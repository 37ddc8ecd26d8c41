// Adaptive average pooling of activated maps, without the activated map in memory.
#ifndef TESSERA_TENSOR_OPS_GELU_POOL_GELU_POOL_H_
#define TESSERA_TENSOR_OPS_GELU_POOL_GELU_POOL_H_

#include <cstdint>

#include "tensor/ops/gelu_pool/gelu_pool_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// y = AdaptiveAvgPool(GELU(x)): x [B, H, W, C], f32 or bf16, with at least one pixel -> y f32 [B,
// pooled_height, pooled_width, C]. GELU is exact; see PooledAxis for the cells.
Tensor GeluPool(const Tensor& x, int64_t pooled_height, int64_t pooled_width);
// Its gradient with respect to x, of x's shape and dtype, from dy f32 [B, h, w, C].
Tensor GeluPoolBackward(const Tensor& dy, const Tensor& x);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_GELU_POOL_GELU_POOL_H_
