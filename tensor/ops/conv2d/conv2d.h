// Dense 2-D convolution, channels last.
#ifndef TESSERA_TENSOR_OPS_CONV2D_CONV2D_H_
#define TESSERA_TENSOR_OPS_CONV2D_CONV2D_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/ops/conv2d/conv2d_geometry.h"
#include "tensor/tensor.h"

namespace tessera {

struct Conv2dArgs {
  int64_t batch, in_height, in_width, in_channels;
  int64_t out_height, out_width, out_channels;
  int64_t kernel_height, kernel_width;
  Conv2dGeometry geometry;
  DType in_dtype;       // of x: f32 or bf16
  DType out_dtype;      // of y and its gradient: f32 or bf16
  const void* x;        // [B, H, W, I]
  const float* weight;  // [O, I, kh, kw]
  const float* bias;    // [O], or null
  void* y;              // [B, OH, OW, O]; forward only
  const void* dy;       // [B, OH, OW, O]; backward only
  void* dx;             // [B, H, W, I] of in_dtype; backward to the input only, overwritten
  float* dweight;       // [O, I, kh, kw]; backward to the weights only
  bool accumulate;      // add to dweight instead of overwriting it

  KernelCost Cost() const {
    const double in = static_cast<double>(batch * in_height * in_width * in_channels);
    const double out = static_cast<double>(batch * out_height * out_width * out_channels);
    return {
        2 * out * static_cast<double>(kernel_height * kernel_width * in_channels),
        in * static_cast<double>(SizeOf(in_dtype)) + out * static_cast<double>(SizeOf(out_dtype))};
  }
};
extern KernelSlot<void(const Conv2dArgs&)> conv2d_forward;
extern KernelSlot<void(const Conv2dArgs&)> conv2d_backward_input;
extern KernelSlot<void(const Conv2dArgs&)> conv2d_backward_weight;

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
