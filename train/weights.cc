#include "train/weights.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "core/edit_distance.h"
#include "core/status.h"
#include "train/weight_source.h"

namespace tessera::train {
namespace {

constexpr size_t kMaxNames = 5;  // listed of each kind in an error

bool IsClassifier(absl::string_view name) { return absl::StartsWith(name, "head."); }

// Which tensors of a state to load, and the report.
struct Plan {
  std::vector<NamedTensor> to_load;
  std::vector<std::pair<NamedTensor, Tensor>> resized;  // and their new values
  LoadReport report;
};

bool IsCounter(const Tensor& tensor) { return tensor.dtype() == DType::kI64; }

// True if the file's tensor can be read into the model's.
bool Fits(const WeightSource::Entry& entry, const Tensor& tensor) {
  return entry.shape == tensor.shape() &&
         (IsCounter(tensor) ? entry.dtype == FileDType::kI64 : IsFloatingPoint(entry.dtype));
}

// The tensor's value from one of another shape, where the model's family knows how.
absl::StatusOr<std::optional<Tensor>> Resized(const WeightSource::Entry& entry,
                                              const Tensor& tensor, const LoadOptions& options) {
  if (options.variant == nullptr || !options.variant->resize_weight || IsCounter(tensor) ||
      !IsFloatingPoint(entry.dtype)) {
    return std::nullopt;
  }
  const Tensor from = Tensor::Empty(entry.shape, DType::kF32);
  RETURN_IF_ERROR(entry.read(from));
  return options.variant->resize_weight(entry.name, from, tensor.shape());
}

absl::Status PlanTensor(const WeightSource& source, const NamedTensor& of_model,
                        const LoadOptions& options, Plan* plan) {
  LoadReport& report = plan->report;
  const auto& [name, tensor] = of_model;
  const WeightSource::Entry* entry = source.Find(name);
  if (entry != nullptr && Fits(*entry, tensor)) {
    plan->to_load.push_back(of_model);
  } else if (options.finetune && IsClassifier(name)) {
    report.fresh.push_back(name);
  } else if (entry == nullptr) {
    if (!IsCounter(tensor)) report.missing.push_back(name);
  } else {
    ASSIGN_OR_RETURN(std::optional<Tensor> resized, Resized(*entry, tensor, options));
    if (resized) {
      report.resized.push_back(absl::StrFormat("%s from %s to %s", name, entry->shape.ToString(),
                                               tensor.shape().ToString()));
      plan->resized.emplace_back(of_model, *std::move(resized));
    } else {
      report.mismatched.push_back(absl::StrFormat(
          "%s is %s%s in the file, expected %s%s", name, Name(entry->dtype),
          entry->shape.ToString(), IsCounter(tensor) ? "I64" : "F32", tensor.shape().ToString()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Plan> MakePlan(const WeightSource& source, const std::vector<NamedTensor>& state,
                              const LoadOptions& options) {
  Plan plan;
  std::set<std::string> known;
  for (const NamedTensor& of_model : state) {
    known.insert(of_model.first);
    RETURN_IF_ERROR(PlanTensor(source, of_model, options, &plan));
  }
  for (const WeightSource::Entry& entry : source.entries()) {
    const bool passed_over =
        !IsFloatingPoint(entry.dtype) || (options.finetune && IsClassifier(entry.name));
    if (!passed_over && known.count(entry.name) == 0) plan.report.unexpected.push_back(entry.name);
  }
  plan.report.num_loaded = static_cast<int64_t>(plan.to_load.size() + plan.resized.size());
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

absl::StatusOr<LoadReport> LoadFrom(const WeightSource& source, ParameterStore& store,
                                    const LoadOptions& options) {
  const std::vector<NamedTensor> state = StateOf(store, store.values());
  ASSIGN_OR_RETURN(Plan plan, MakePlan(source, state, options));
  RETURN_IF_ERROR(
      CheckFit(source.path(), plan.report, static_cast<int64_t>(state.size()), options));
  for (const auto& [name, tensor] : plan.to_load) {
    RETURN_IF_ERROR(source.Find(name)->read(tensor));
  }
  for (const auto& [of_model, value] : plan.resized) {
    of_model.second.CopyFrom(value);
    LOG(INFO) << source.path() << ": resized " << of_model.first << " to " << value.shape();
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
  append("resized", resized);
  append("left fresh", fresh);
  append("not in the file", missing);
  append("not in the model", unexpected);
  return text;
}

absl::StatusOr<LoadReport> LoadWeights(FileSystem& fs, const std::string& path,
                                       ParameterStore& store, const LoadOptions& options) {
  ASSIGN_OR_RETURN(const WeightSource source,
                   WeightSource::Open(fs, path, options.ema,
                                      options.variant == nullptr
                                          ? absl::Span<const NameRule>()
                                          : absl::MakeConstSpan(options.variant->weight_names)));
  return LoadFrom(source, store, options);
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
