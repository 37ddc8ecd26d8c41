// Kernels of softmax cross entropy: what runs on a device, on pointers and sizes. Formulas:
// softmax_cross_entropy.h.
#ifndef TESSERA_TENSOR_OPS_SOFTMAX_CROSS_ENTROPY_SOFTMAX_CROSS_ENTROPY_KERNEL_H_
#define TESSERA_TENSOR_OPS_SOFTMAX_CROSS_ENTROPY_SOFTMAX_CROSS_ENTROPY_KERNEL_H_

#include <cstdint>

#include "core/kernel.h"

namespace tessera {

struct SoftmaxCrossEntropyArgs {
  const float* logits;   // [B, K]
  const float* targets;  // [B, K]
  float* losses;         // [B]: -sum_k targets log softmax(logits)
  float* loss;           // one number: the mean of the losses, summed in double
  float* dlogits;        // [B, K]: gradient of the mean of the losses, or null
  int64_t batch;
  int64_t classes;
};
extern KernelSlot<void(const SoftmaxCrossEntropyArgs&)> softmax_cross_entropy;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_SOFTMAX_CROSS_ENTROPY_SOFTMAX_CROSS_ENTROPY_KERNEL_H_
