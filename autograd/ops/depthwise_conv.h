// Differentiable depthwise 3x3 convolution.
#ifndef TESSERA_AUTOGRAD_OPS_DEPTHWISE_CONV_H_
#define TESSERA_AUTOGRAD_OPS_DEPTHWISE_CONV_H_

#include "tensor/tensor.h"

namespace tessera {

// y = conv(x) + bias, or x + conv(x) + bias when `residual`: x [B, H, W, C] f32 or bf16, weight f32
// [C, 1, 3, 3], bias f32 [C] or undefined, stride 1, zero padding 1; y of x's shape and dtype.
Tensor DepthwiseConv(const Tensor& x, const Tensor& weight, const Tensor& bias, bool residual);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_DEPTHWISE_CONV_H_
