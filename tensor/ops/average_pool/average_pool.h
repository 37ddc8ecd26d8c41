// Average pooling 2 x 2 with stride 2, channels last.
#ifndef TESSERA_TENSOR_OPS_AVERAGE_POOL_AVERAGE_POOL_H_
#define TESSERA_TENSOR_OPS_AVERAGE_POOL_AVERAGE_POOL_H_

#include "tensor/ops/average_pool/average_pool_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// A quarter of the sum of four pixels: x [B, H, W, C] f32 or bf16 -> [B, ceil(H / 2), ceil(W / 2),
// C] of `out_dtype`. Odd sizes are padded with a zero row or column at the bottom or right, which
// the quarter counts.
Tensor AveragePool(const Tensor& x, DType out_dtype);
// The gradient of x, written or added to dx [B, H, W, C]; f32 or bf16.
void AveragePoolBackward(const Tensor& dy, const Tensor& dx, bool accumulate);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_AVERAGE_POOL_AVERAGE_POOL_H_
