// Kernels of depthwise convolution: what runs on a device, on pointers and sizes. Formulas:
// depthwise_conv.h.
#ifndef TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_KERNEL_H_
#define TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct DepthwiseConvArgs {
  const void* x;        // [B, H, W, C]
  const float* weight;  // [C, 3, 3]
  const float* bias;    // [C], or null
  void* y;              // [B, H, W, C]
  int64_t batch, height, width, channels;
  bool residual;    // y = x + conv(x)
  bool transposed;  // convolve with the kernel turned by 180 degrees: the gradient of the input
  bool accumulate;  // add to y
  DType dtype;      // of x and y: f32 or bf16
};
extern KernelSlot<void(const DepthwiseConvArgs&)> depthwise_conv;

struct DepthwiseConvGradWeightArgs {
  const void* dy;  // [B, H, W, C]
  const void* x;   // [B, H, W, C]
  float* dweight;  // [C, 3, 3], or null
  float* dbias;    // [C], or null
  int64_t batch, height, width, channels;
  bool accumulate_dweight;
  bool accumulate_dbias;
  DType dtype;  // of dy and x: f32 or bf16
};
extern KernelSlot<void(const DepthwiseConvGradWeightArgs&)> depthwise_conv_grad_weight;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_KERNEL_H_
