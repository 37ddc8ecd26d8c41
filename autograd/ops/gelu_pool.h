// Differentiable adaptive pooling of activated maps.
#ifndef TESSERA_AUTOGRAD_OPS_GELU_POOL_H_
#define TESSERA_AUTOGRAD_OPS_GELU_POOL_H_

#include <cstdint>

#include "tensor/tensor.h"

namespace tessera {

// AdaptiveAvgPool(GELU(x)): x [B, H, W, C], f32 or bf16 -> f32 [B, pooled_height, pooled_width, C];
// see ops::GeluPool.
Tensor GeluPool(const Tensor& x, int64_t pooled_height, int64_t pooled_width);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_GELU_POOL_H_
