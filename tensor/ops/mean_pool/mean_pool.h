// Mean over the pixels of a map.
#ifndef TESSERA_TENSOR_OPS_MEAN_POOL_MEAN_POOL_H_
#define TESSERA_TENSOR_OPS_MEAN_POOL_MEAN_POOL_H_

#include <cstdint>

#include "tensor/ops/mean_pool/mean_pool_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// Mean over all axes between the first and the last: x [B, H, W, C] or [B, N, C], f32 or bf16, with
// at least one pixel; result f32 [B, C].
Tensor MeanPool(const Tensor& x);
// dy f32 [B, C] divided by the number of pixels, written to (or added to) every pixel of dx.
void MeanPoolBackward(const Tensor& dy, const Tensor& dx, bool accumulate);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_MEAN_POOL_MEAN_POOL_H_
