#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy.h"

#include <algorithm>

#include "tensor/ops/describe.h"

namespace tessera {

constinit KernelSlot<void(const SoftmaxCrossEntropyArgs&)> softmax_cross_entropy(
    "softmax_cross_entropy");

namespace ops {

SoftmaxCrossEntropyResult SoftmaxCrossEntropy(const Tensor& logits, const Tensor& targets,
                                              bool want_gradient) {
  CHECK(logits.rank() == 2 && logits.shape() == targets.shape() && logits.dim(0) >= 1 &&
        logits.dim(1) >= 1)
      << "softmax_cross_entropy: logits " << Describe(logits) << ", targets " << Describe(targets);
  SoftmaxCrossEntropyResult result;
  const int64_t batch = logits.dim(0);
  result.losses = Tensor::Empty({batch}, DType::kF32, logits.device());
  result.loss = Tensor::Empty({}, DType::kF32, logits.device());
  if (want_gradient) {
    result.dlogits = Tensor::Empty(logits.shape(), DType::kF32, logits.device());
  }
  softmax_cross_entropy(logits.device(), SoftmaxCrossEntropyArgs{
                                             logits.data<float>(), targets.data<float>(),
                                             result.losses.data<float>(), result.loss.data<float>(),
                                             want_gradient ? result.dlogits.data<float>() : nullptr,
                                             batch, logits.dim(1)});
  return result;
}

Tensor SmoothedOneHot(absl::Span<const int32_t> labels, int64_t classes, double smoothing) {
  Tensor targets = Tensor::Empty({static_cast<int64_t>(labels.size()), classes}, DType::kF32);
  float* row = targets.data<float>();
  const double off = smoothing / static_cast<double>(classes);
  for (const int32_t label : labels) {
    CHECK(label >= 0 && label < classes) << "label " << label << " of " << classes << " classes";
    std::fill(row, row + classes, static_cast<float>(off));
    row[label] = static_cast<float>(1.0 - smoothing + off);
    row += classes;
  }
  return targets;
}

}  // namespace ops
}  // namespace tessera
