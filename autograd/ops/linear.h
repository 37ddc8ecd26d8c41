// Differentiable linear layer.
#ifndef TESSERA_AUTOGRAD_OPS_LINEAR_H_
#define TESSERA_AUTOGRAD_OPS_LINEAR_H_

#include "tensor/tensor.h"

namespace tessera {

// y = x w^T + bias: x [..., in], w [out, in] of x's dtype (the f32 parameter or its bf16 copy),
// bias f32 [out] or undefined; y [..., out] of `out_dtype`. The gradients of w and bias are summed
// in f32.
Tensor Linear(const Tensor& x, const Tensor& w, const Tensor& bias, DType out_dtype);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_LINEAR_H_
