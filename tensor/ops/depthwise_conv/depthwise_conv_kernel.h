// Kernels of depthwise convolution: what runs on a device, on pointers and sizes. Formulas:
// depthwise_conv.h.
#ifndef TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_KERNEL_H_
#define TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/ops/conv2d/conv2d_geometry.h"

namespace tessera {

// x [B, H, W, C], kernel [C, K, K], y [B, OH, OW, C]. Pixels of x and y, and of their gradients,
// may lie further apart than C elements: channels can be a slice of wider rows.
struct DepthwiseConvShape {
  int64_t batch, height, width, channels;
  int64_t out_height, out_width;
  int64_t kernel_size;      // K: 3, 5 or 7
  Conv2dGeometry geometry;  // stride 1 or 2

  int64_t taps() const { return kernel_size * kernel_size; }
  // The convolution from y to x whose kernel is this one's turned by 180 degrees: for stride 1 the
  // gradient of the input.
  DepthwiseConvShape Turned() const {
    const int64_t reach = kernel_size - 1;
    DepthwiseConvShape turned = *this;
    turned.height = out_height;
    turned.width = out_width;
    turned.out_height = height;
    turned.out_width = width;
    turned.geometry.pad_top = reach - geometry.pad_top;
    turned.geometry.pad_left = reach - geometry.pad_left;
    return turned;
  }
  // Of a pass over x and y, or over their gradients.
  KernelCost Cost(DType dtype) const {
    const auto in = static_cast<double>(batch * height * width * channels);
    const auto out = static_cast<double>(batch * out_height * out_width * channels);
    return {2 * out * static_cast<double>(taps()), (in + out) * static_cast<double>(SizeOf(dtype))};
  }
};

struct DepthwiseConvArgs {
  DepthwiseConvShape shape;
  DType dtype;  // of x and y: f32 or bf16
  const void* x;
  int64_t x_stride;     // elements between pixels
  const float* weight;  // [C, K, K]
  const float* bias;    // [C], or null
  void* y;
  int64_t y_stride;
  bool residual;    // y = x + conv(x); stride 1, padding K / 2
  bool accumulate;  // add to y

  KernelCost Cost() const { return shape.Cost(dtype); }
};
extern KernelSlot<void(const DepthwiseConvArgs&)> depthwise_conv;

struct DepthwiseConvGradInputArgs {
  DepthwiseConvShape shape;
  DType dtype;  // of dy and dx: f32 or bf16
  const void* dy;
  int64_t dy_stride;
  const float* weight;  // [C, K, K]
  void* dx;
  int64_t dx_stride;
  bool residual;
  bool accumulate;  // add to dx

  KernelCost Cost() const { return shape.Cost(dtype); }
};
extern KernelSlot<void(const DepthwiseConvGradInputArgs&)> depthwise_conv_grad_input;

struct DepthwiseConvGradWeightArgs {
  DepthwiseConvShape shape;
  DType dtype;  // of dy and x: f32 or bf16
  const void* dy;
  int64_t dy_stride;
  const void* x;
  int64_t x_stride;
  float* dweight;  // [C, K, K], or null
  float* dbias;    // [C], or null
  bool accumulate_dweight;
  bool accumulate_dbias;

  KernelCost Cost() const { return shape.Cost(dtype); }
};
extern KernelSlot<void(const DepthwiseConvGradWeightArgs&)> depthwise_conv_grad_weight;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_KERNEL_H_
