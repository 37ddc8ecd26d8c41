#include "train/weights.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "core/edit_distance.h"
#include "core/status.h"
#include "train/checkpoint.h"

namespace tessera::train {
namespace {

constexpr size_t kMaxNames = 5;  // listed of each kind in an error

bool IsClassifier(absl::string_view name) { return absl::StartsWith(name, "head."); }

// Which tensors of a state to load, and the report.
struct Plan {
  std::vector<NamedTensor> to_load;
  LoadReport report;
};

// True if the file's tensor can be read into the model's.
bool Fits(const SafetensorsFile::Entry& entry, const Tensor& tensor) {
  const bool is_counter = tensor.dtype() == DType::kI64;
  return entry.shape == tensor.shape() &&
         (is_counter ? entry.dtype == SafetensorsDType::kI64 : IsFloatingPoint(entry.dtype));
}

Plan MakePlan(const SafetensorsFile& file, const std::vector<NamedTensor>& state,
              const LoadOptions& options) {
  Plan plan;
  LoadReport& report = plan.report;
  std::set<std::string> known;
  for (const auto& [name, tensor] : state) {
    known.insert(name);
    const SafetensorsFile::Entry* entry = file.Find(name);
    const bool is_counter = tensor.dtype() == DType::kI64;
    if (entry != nullptr && Fits(*entry, tensor)) {
      plan.to_load.emplace_back(name, tensor);
    } else if (options.finetune && IsClassifier(name)) {
      report.fresh.push_back(name);
    } else if (entry == nullptr) {
      if (!is_counter) report.missing.push_back(name);
    } else {
      report.mismatched.push_back(absl::StrFormat(
          "%s is %s%s in the file, expected %s%s", name, Name(entry->dtype),
          entry->shape.ToString(), is_counter ? "I64" : "F32", tensor.shape().ToString()));
    }
  }
  for (const SafetensorsFile::Entry& entry : file.entries()) {
    const bool passed_over =
        !IsFloatingPoint(entry.dtype) || (options.finetune && IsClassifier(entry.name));
    if (!passed_over && known.count(entry.name) == 0) report.unexpected.push_back(entry.name);
  }
  report.num_loaded = static_cast<int64_t>(plan.to_load.size());
  return plan;
}

// "\n  KIND: NAME" for the first names, each with the nearest of `candidates`.
void ListNames(absl::string_view kind, const std::vector<std::string>& names,
               const std::vector<std::string>& candidates, std::string* text) {
  for (size_t i = 0; i < std::min(names.size(), kMaxNames); ++i) {
    absl::StrAppend(text, "\n  ", kind, ": ", names[i], DidYouMean(names[i], candidates));
  }
  if (names.size() > kMaxNames) {
    absl::StrAppend(text, "\n  ", kind, ": ", names.size() - kMaxNames, " more");
  }
}

absl::Status CheckFit(const std::string& path, const LoadReport& report, int64_t num_tensors,
                      const LoadOptions& options) {
  const bool names_fit = report.missing.empty() && report.unexpected.empty();
  if (report.mismatched.empty() && (names_fit || !options.strict) &&
      (report.num_loaded > 0 || num_tensors == 0)) {
    return absl::OkStatus();
  }
  std::string text = absl::StrFormat("%s does not fit the model: %d of %d tensors match", path,
                                     report.num_loaded, num_tensors);
  ListNames("shape", report.mismatched, {}, &text);
  ListNames("not in the file", report.missing, report.unexpected, &text);
  ListNames("not in the model", report.unexpected, report.missing, &text);
  if (!options.finetune && names_fit && report.num_loaded > 0 &&
      std::all_of(report.mismatched.begin(), report.mismatched.end(), IsClassifier)) {
    absl::StrAppend(&text, "\n  train.finetune=true leaves the classifier as it starts");
  }
  return DataError(text);
}

absl::StatusOr<LoadReport> LoadFrom(const SafetensorsFile& file, ParameterStore& store,
                                    const LoadOptions& options) {
  const std::vector<NamedTensor> state = StateOf(store, store.values());
  Plan plan = MakePlan(file, state, options);
  RETURN_IF_ERROR(CheckFit(file.path(), plan.report, static_cast<int64_t>(state.size()), options));
  for (const auto& [name, tensor] : plan.to_load) {
    if (tensor.dtype() == DType::kF32) {
      RETURN_IF_ERROR(
          file.ReadAsF32(name, {tensor.data<float>(), static_cast<size_t>(tensor.numel())}));
    } else {
      ASSIGN_OR_RETURN(const Tensor read, file.Read(name));
      tensor.CopyFrom(read);
    }
  }
  store.RefreshCopies();
  return std::move(plan.report);
}

}  // namespace

std::string LoadReport::ToString() const {
  std::string text = absl::StrFormat("%d tensors loaded", num_loaded);
  const auto append = [&](absl::string_view what, const std::vector<std::string>& names) {
    if (names.empty()) return;
    absl::StrAppend(&text, ", ", names.size(), " ", what, " (", names.front(),
                    names.size() > 1 ? ", ...)" : ")");
  };
  append("left fresh", fresh);
  append("not in the file", missing);
  append("not in the model", unexpected);
  return text;
}

absl::StatusOr<LoadReport> LoadWeights(FileSystem& fs, const std::string& path,
                                       ParameterStore& store, const LoadOptions& options) {
  for (const char* suffix : {".pth", ".pt", ".bin", ".ckpt"}) {
    if (!absl::EndsWith(path, suffix)) continue;
    return DataError(
        absl::StrFormat("%s: pickled weights are not read; in Python, "
                        "safetensors.torch.save_file writes those that are",
                        path));
  }
  const absl::StatusOr<FileInfo> info = fs.Stat(ResolveReplaced(fs, path));
  if (!info.ok()) return info.status();
  if (!info->is_directory) {
    ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::Open(fs, path));
    return LoadFrom(file, store, options);
  }
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(fs, path));
  const char* const group = options.ema ? "ema" : "model";
  const SafetensorsFile* const file = checkpoint.group(group);
  if (file == nullptr) {
    return absl::NotFoundError(absl::StrFormat("%s: holds no %s.safetensors", path, group));
  }
  return LoadFrom(*file, store, options);
}

std::vector<NamedTensor> SlicesOf(const ParameterStore& store, const Tensor& flat,
                                  absl::string_view name_prefix) {
  CHECK(flat.shape() == store.grads().shape())
      << "a buffer of " << flat.shape() << " for parameters of " << store.grads().shape();
  std::vector<NamedTensor> slices;
  for (const ParameterStore::Entry& entry : store.entries()) {
    const Shape& shape = entry.parameter->shape();
    slices.emplace_back(absl::StrCat(name_prefix, entry.name),
                        flat.Slice(entry.offset, entry.offset + shape.numel()).Reshape(shape));
  }
  return slices;
}

std::vector<NamedTensor> StateOf(const ParameterStore& store, const Tensor& values) {
  CHECK(values.shape() == store.values().shape())
      << "a buffer of " << values.shape() << " for values of " << store.values().shape();
  std::vector<NamedTensor> state = SlicesOf(store, store.Trained(values));
  for (const ParameterStore::BufferEntry& entry : store.buffers()) {
    const Shape& shape = entry.buffer->shape();
    const Tensor& flat = entry.buffer->dtype() == DType::kF32 ? values : store.counters();
    state.emplace_back(entry.name,
                       flat.Slice(entry.offset, entry.offset + shape.numel()).Reshape(shape));
  }
  return state;
}

absl::Status ExportSafetensors(FileSystem& fs, const std::string& path, const ParameterStore& store,
                               std::map<std::string, std::string> metadata) {
  metadata.emplace("format", "pt");  // other readers refuse files without it
  return WriteSafetensors(fs, path, StateOf(store, store.values()), metadata);
}

}  // namespace tessera::train
