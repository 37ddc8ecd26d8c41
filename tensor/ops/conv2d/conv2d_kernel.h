// Kernels of dense convolution: what runs on a device, on pointers and sizes. Formulas: conv2d.h.
#ifndef TESSERA_TENSOR_OPS_CONV2D_CONV2D_KERNEL_H_
#define TESSERA_TENSOR_OPS_CONV2D_CONV2D_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/ops/conv2d/conv2d_geometry.h"

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

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_CONV2D_CONV2D_KERNEL_H_
