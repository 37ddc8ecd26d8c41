// Dense 2-D convolution, channels last.
#ifndef TESSERA_TENSOR_OPS_CONV2D_CONV2D_H_
#define TESSERA_TENSOR_OPS_CONV2D_CONV2D_H_

#include <cstdint>

#include "tensor/ops/conv2d/conv2d_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// Shape of the result of convolving x [B, H, W, I] with weight [O, I, kh, kw]: [B, OH, OW, O].
Shape Conv2dShape(const Shape& x, const Shape& weight, const Conv2dGeometry& geometry);

// y = x * weight + bias: x [B, H, W, I] f32 or bf16, weight f32 [O, I, kh, kw], bias f32 [O] or
// undefined.
Tensor Conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv2dGeometry& geometry, DType out_dtype);
// dx, of shape [B, H, W, I] and x's dtype, from dy [B, OH, OW, O].
Tensor Conv2dGradInput(const Tensor& dy, const Tensor& weight, const Shape& x_shape, DType x_dtype,
                       const Conv2dGeometry& geometry);
// dweight f32 [O, I, kh, kw], written to or added to; dy is of x's dtype.
void Conv2dGradWeight(const Tensor& dy, const Tensor& x, const Tensor& dweight,
                      const Conv2dGeometry& geometry, bool accumulate);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_CONV2D_CONV2D_H_
