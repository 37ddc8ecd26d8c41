// Differentiable mean over the pixels of a map.
#ifndef TESSERA_AUTOGRAD_OPS_MEAN_POOL_H_
#define TESSERA_AUTOGRAD_OPS_MEAN_POOL_H_

#include "tensor/tensor.h"

namespace tessera {

// x [B, H, W, C] or [B, N, C], f32 or bf16 -> f32 [B, C].
Tensor MeanPool(const Tensor& x);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_MEAN_POOL_H_
