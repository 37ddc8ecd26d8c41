// Differentiable linear layer.
#ifndef TESSERA_AUTOGRAD_OPS_LINEAR_H_
#define TESSERA_AUTOGRAD_OPS_LINEAR_H_

#include "tensor/tensor.h"

namespace tessera {

// y = x w^T + bias: x [..., in], w [out, in] of x's dtype (the f32 parameter or its bf16 copy),
// bias f32 [out] or undefined; y [..., out] of `out_dtype`. The gradients of w and bias are summed
// in f32.
//
// The products of the backward pass are made of `backward_w`, which is w or its copy in another
// dtype, and of x, kept in that dtype.
Tensor Linear(const Tensor& x, const Tensor& w, const Tensor& bias, DType out_dtype,
              const Tensor& backward_w);
inline Tensor Linear(const Tensor& x, const Tensor& w, const Tensor& bias, DType out_dtype) {
  return Linear(x, w, bias, out_dtype, w);
}

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_LINEAR_H_
