// Differentiable softmax cross entropy.
#ifndef TESSERA_AUTOGRAD_OPS_SOFTMAX_CROSS_ENTROPY_H_
#define TESSERA_AUTOGRAD_OPS_SOFTMAX_CROSS_ENTROPY_H_

#include "tensor/tensor.h"

namespace tessera {

// Mean over the batch of -sum_k targets log softmax(logits), an f32 scalar: logits and targets f32
// [B, K]. The gradient flows to the logits alone.
Tensor SoftmaxCrossEntropy(const Tensor& logits, const Tensor& targets);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_SOFTMAX_CROSS_ENTROPY_H_
