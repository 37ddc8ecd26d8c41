// The two-layer perceptron of a transformer block as one differentiable op.
#ifndef TESSERA_AUTOGRAD_OPS_MLP_H_
#define TESSERA_AUTOGRAD_OPS_MLP_H_

#include "tensor/activation.h"
#include "tensor/tensor.h"

namespace tessera {

// activation(x w1^T + b1) w2^T + b2: x [..., in], w1 [hidden, in] and w2 [out, hidden] of x's
// dtype, f32 or bf16; b1 and b2 f32 or undefined; the result [..., out] of x's dtype.
//
// One node instead of three: of the two hidden maps it keeps only the one before the activation and
// makes the other again, in the same memory, when its gradient is done.
Tensor Mlp(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
           Activation activation);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_MLP_H_
