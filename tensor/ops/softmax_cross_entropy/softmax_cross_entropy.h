// Softmax cross entropy with soft targets.
#ifndef TESSERA_TENSOR_OPS_SOFTMAX_CROSS_ENTROPY_SOFTMAX_CROSS_ENTROPY_H_
#define TESSERA_TENSOR_OPS_SOFTMAX_CROSS_ENTROPY_SOFTMAX_CROSS_ENTROPY_H_

#include <cstdint>

#include "absl/types/span.h"
#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

struct SoftmaxCrossEntropyResult {
  Tensor loss;     // f32 scalar: the mean over the batch
  Tensor losses;   // f32 [B]
  Tensor dlogits;  // f32 [B, K]: gradient of `loss`; undefined unless asked for
};

// logits f32 [B, K] and targets f32 [B, K], whose rows need not sum to 1; B >= 1. The mean is
// summed in double in the order of the batch.
SoftmaxCrossEntropyResult SoftmaxCrossEntropy(const Tensor& logits, const Tensor& targets,
                                              bool want_gradient);

// Targets of label smoothing (Szegedy et al., arXiv 1512.00567): smoothing / K everywhere plus 1 -
// smoothing at the label; f32 [B, K]. CHECKs 0 <= label < K.
Tensor SmoothedOneHot(absl::Span<const int32_t> labels, int64_t classes, double smoothing);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_SOFTMAX_CROSS_ENTROPY_SOFTMAX_CROSS_ENTROPY_H_
