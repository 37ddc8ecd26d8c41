// Differentiable depthwise convolution.
#ifndef TESSERA_AUTOGRAD_OPS_DEPTHWISE_CONV_H_
#define TESSERA_AUTOGRAD_OPS_DEPTHWISE_CONV_H_

#include "tensor/ops/conv2d/conv2d_geometry.h"
#include "tensor/tensor.h"

namespace tessera {

// y = conv(x) + bias, or x + conv(x) + bias when `residual`; see ops::DepthwiseConv. Gradients flow
// to x, weight and bias.
Tensor DepthwiseConv(const Tensor& x, const Tensor& weight, const Tensor& bias,
                     const Conv2dGeometry& geometry, bool residual);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_DEPTHWISE_CONV_H_
