#include "train/run_log.h"

#include <utility>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "core/json.h"
#include "core/status.h"

namespace tessera::train {
namespace {

// The lines of `text` that are whole and of at most this step.
std::string LinesUpTo(absl::string_view text, int64_t step, const std::string& path) {
  std::string kept;
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const absl::StatusOr<Json> json = ParseJson(line, path);
    if (!json.ok() || !json->is_object()) continue;
    const auto found = json->find("step");
    if (found == json->end() || !found->is_number_integer()) continue;
    if (found->get<int64_t>() <= step) absl::StrAppend(&kept, line, "\n");
  }
  return kept;
}

}  // namespace

absl::StatusOr<RunLog> RunLog::Open(FileSystem& fs, const std::string& run_dir, int64_t step) {
  const std::string path = JoinPath(run_dir, "metrics.jsonl");
  const std::string tensorboard_dir = JoinPath(run_dir, "tensorboard");
  RETURN_IF_ERROR(fs.CreateDirectories(tensorboard_dir));
  if (fs.Exists(path)) {
    ASSIGN_OR_RETURN(const std::string text, fs.ReadFile(path));
    const std::string kept = LinesUpTo(text, step, path);
    if (kept != text) RETURN_IF_ERROR(WriteFileAtomically(fs, path, kept));
  }
  ASSIGN_OR_RETURN(auto lines, fs.OpenWritable(path, WriteMode::kAppend));
  ASSIGN_OR_RETURN(TensorBoardWriter tensorboard,
                   TensorBoardWriter::Create(fs, tensorboard_dir, step + 1, absl::Now()));
  return RunLog(std::move(lines), std::move(tensorboard));
}

absl::Status RunLog::Write(int64_t step, absl::Span<const Scalar> scalars) {
  const absl::Time now = absl::Now();
  // The order of the scalars stays, unlike in a Json object.
  nlohmann::ordered_json line = {{"step", step}, {"time", absl::ToUnixMillis(now) * 1e-3}};
  for (const auto& [name, value] : scalars) line[name] = value;
  RETURN_IF_ERROR(lines_->Append(
      line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n"));
  return tensorboard_.Write(step, now, scalars);
}

}  // namespace tessera::train
