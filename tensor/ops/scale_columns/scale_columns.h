// A factor for each column.
#ifndef TESSERA_TENSOR_OPS_SCALE_COLUMNS_SCALE_COLUMNS_H_
#define TESSERA_TENSOR_OPS_SCALE_COLUMNS_SCALE_COLUMNS_H_

#include "tensor/ops/scale_columns/scale_columns_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// y[r, c] = x[r, c] scale[c]: x and y [..., C], f32 or bf16; scale f32 [C]. y may be x.
void ScaleColumnsTo(const Tensor& x, const Tensor& scale, const Tensor& y);

// Its gradients: dx[r, c] = dy[r, c] scale[c], of x's shape and dtype like dy, which dx may be; and
// dscale[c] = the sum over rows of dy[r, c] x[r, c], written to (or added to) dscale f32 [C]. The
// same bits for any number of threads.
void ScaleColumnsBackward(const Tensor& dy, const Tensor& x, const Tensor& scale, const Tensor& dx,
                          const Tensor& dscale, bool accumulate);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_SCALE_COLUMNS_SCALE_COLUMNS_H_
