// Differentiable dense convolution.
#ifndef TESSERA_AUTOGRAD_OPS_CONV2D_H_
#define TESSERA_AUTOGRAD_OPS_CONV2D_H_

#include "tensor/ops/conv2d/conv2d.h"

namespace tessera {

// y = x * weight + bias, channels last; see ops::Conv2d. Gradients flow to x, weight and bias.
Tensor Conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv2dGeometry& geometry, DType out_dtype);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_CONV2D_H_
