// golden_test: checks this build against every golden case of a directory.
//   golden_test --golden_dir=DIR [--precision=bf16] [--allow_unsupported]
// Prints a line per case and a summary; exits with 1 if a case failed, or was unsupported and not
// allowed to be.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/match.h"
#include "core/status.h"
#include "tests/golden/data_cases.h"
#include "tests/golden/golden_case.h"
#include "tests/golden/golden_family.h"

namespace tessera {
namespace {

struct Options {
  std::string golden_dir = std::string(TESSERA_SOURCE_DIR) + "/tests/golden/cases";
  std::string data_dir = std::string(TESSERA_SOURCE_DIR) + "/../shared/data";
  std::string precision = "fp32";
  bool allow_unsupported = false;
};

// Cases of the data pipeline have kinds in their names instead of a family.
bool IsDataCase(const std::string& name) {
  return absl::StartsWith(name, "transforms") || absl::StartsWith(name, "data_cases") ||
         absl::StartsWith(name, "data_tables");
}

CaseResult ToCaseResult(const DataCaseResult& data) {
  CaseResult result;
  result.name = data.name;
  result.kind = data.ok ? CaseResult::Kind::kOk : CaseResult::Kind::kFailed;
  result.worst = data.worst;
  result.where = data.skipped ? "" : data.where;
  if (data.skipped) result.message = "left out: " + data.where;
  return result;
}

absl::StatusOr<CaseResult> Dispatch(const GoldenCase& golden, DType compute_dtype) {
  if (golden.meta.contains("mode")) return RunFamilyCase(golden, compute_dtype);
  const std::string scope = golden.meta.value("scope", "");
  if (scope == "model") return RunModelCase(golden, compute_dtype);
  if (scope == "training") return RunTrainingCase(golden, compute_dtype);
  return absl::NotFoundError("no check for scope '" + scope + "'");
}

// The case of a description, or of a file of tensors that has none.
CaseResult RunCase(const std::filesystem::path& path, DType compute_dtype) {
  CaseResult result;
  result.name = path.stem().string();
  const auto run = [&]() -> absl::StatusOr<CaseResult> {
    Json meta;
    if (path.extension() == ".json") {
      ASSIGN_OR_RETURN(const std::string text, PosixFileSystem().ReadFile(path.string()));
      ASSIGN_OR_RETURN(meta, ParseJson(text, path.string()));
      if (!meta.is_object() || !meta.contains("family")) {
        return absl::NotFoundError("not the case of a model");
      }
    }
    std::filesystem::path tensors = path;
    ASSIGN_OR_RETURN(SafetensorsFile file,
                     SafetensorsFile::Open(PosixFileSystem(),
                                           tensors.replace_extension("safetensors").string()));
    const GoldenCase golden = {result.name, std::move(meta), std::move(file)};
    const GoldenFileCheck check = FindGoldenFile(result.name);
    return check != nullptr ? check(golden) : Dispatch(golden, compute_dtype);
  };
  // nlohmann reports keys that a case lacks by throwing.
  try {
    absl::StatusOr<CaseResult> outcome = run();
    if (outcome.ok()) return *outcome;
    result.kind = absl::IsNotFound(outcome.status()) ? CaseResult::Kind::kUnsupported
                                                     : CaseResult::Kind::kFailed;
    result.message = std::string(outcome.status().message());
  } catch (const nlohmann::json::exception& e) {
    result.kind = CaseResult::Kind::kFailed;
    result.message = e.what();
  }
  return result;
}

void Print(const CaseResult& r) {
  const char* const verdict = r.kind == CaseResult::Kind::kOk       ? "ok"
                              : r.kind == CaseResult::Kind::kFailed ? "FAILED"
                                                                    : "unsupported";
  std::printf("%-32s  %s", r.name.c_str(), verdict);
  if (!r.where.empty()) std::printf("  worst %.3f of tolerance at %s", r.worst, r.where.c_str());
  if (!r.message.empty()) std::printf("  %s", r.message.c_str());
  std::printf("\n");
  std::fflush(stdout);
}

int Main(int argc, char** argv) {
  Options options;
  CLI::App app("Checks this build against the golden cases of a directory.", "golden_test");
  app.add_option("--golden_dir", options.golden_dir, "folder of NAME.json with NAME.safetensors");
  app.add_option("--data_dir", options.data_dir,
                 "pictures that cases name; their cases are left out where it is not there");
  app.add_option("--precision", options.precision, "compute dtype of model cases")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_flag("--allow_unsupported", options.allow_unsupported,
               "families that this build does not have are no failure");
  CLI11_PARSE(app, argc, argv);

  std::vector<std::filesystem::path> paths;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(options.golden_dir, error)) {
    const std::string stem = entry.path().stem().string();
    const bool described = entry.path().extension() == ".json" && !IsDataCase(stem);
    const bool registered =
        entry.path().extension() == ".safetensors" && FindGoldenFile(stem) != nullptr;
    if (described || registered) paths.push_back(entry.path());
  }
  if (error) {
    std::fprintf(stderr, "golden_test: cannot read %s\n", options.golden_dir.c_str());
    return 2;
  }
  std::sort(paths.begin(), paths.end());
  int counts[3] = {0, 0, 0};
  const auto count = [&](const CaseResult& result) {
    Print(result);
    ++counts[static_cast<int>(result.kind)];
  };
  for (const DataCaseResult& result : RunDataCases(options.golden_dir, options.data_dir)) {
    count(ToCaseResult(result));
  }
  for (const auto& path : paths) {
    count(RunCase(path, options.precision == "bf16" ? DType::kBF16 : DType::kF32));
  }
  if (counts[0] + counts[1] + counts[2] == 0) {
    std::fprintf(stderr, "golden_test: no cases in %s\n", options.golden_dir.c_str());
    return 2;
  }
  std::printf("%d ok, %d failed, %d unsupported\n", counts[0], counts[1], counts[2]);
  return counts[1] == 0 && (counts[2] == 0 || options.allow_unsupported) ? 0 : 1;
}

}  // namespace
}  // namespace tessera

int main(int argc, char** argv) { return tessera::Main(argc, argv); }
