#include "train/find_nonfinite.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "tensor/ops/cast/cast.h"
#include "tensor/ops/squared_norm/squared_norm.h"
#include "train/weights.h"

namespace tessera::train {
namespace {

bool IsFinite(const Tensor& t) {
  if (!t.defined() || t.numel() == 0) return true;
  if (t.dtype() != DType::kF32 && t.dtype() != DType::kBF16) return true;
  return std::isfinite(ops::SquaredNorm(t.dtype() == DType::kF32 ? t : ops::Cast(t, DType::kF32)));
}

// " of NAME": the first parameter among the inputs of an operation.
std::string OfParameter(const ParameterStore& store, absl::Span<const int64_t> inputs) {
  for (const int64_t input : inputs) {
    for (const ParameterStore::Entry& entry : store.entries()) {
      const int64_t slot = entry.parameter->value().slot();
      if (slot == input && slot != Tensor::kNoSlot) return absl::StrCat(" of ", entry.name);
    }
  }
  return "";
}

}  // namespace

std::string FindNonFinite(const ImageModel& model, ParameterStore& store,
                          const StepOptions& options, const Tensor& images, const Tensor& targets,
                          int64_t step) {
  if (!IsFinite(images)) return "the images";
  if (!IsFinite(targets)) return "the targets";
  for (const auto& [name, tensor] : StateOf(store, store.values())) {
    if (!IsFinite(tensor)) return name;
  }
  int64_t count = 0;
  std::string found;
  const ObserveOps observe([&](const OpResult& result) {
    ++count;
    if (!found.empty() || IsFinite(result.value)) return;
    found =
        absl::StrCat("operation ", count, ", '", result.op, "'", OfParameter(store, result.inputs),
                     ", in the ", result.backward ? "backward" : "forward", " pass");
  });
  ComputeGradients(model, store, options, images, targets, step);
  return found;
}

}  // namespace tessera::train
