// Differentiable activation functions.
#ifndef TESSERA_AUTOGRAD_OPS_ACTIVATION_H_
#define TESSERA_AUTOGRAD_OPS_ACTIVATION_H_

#include "tensor/activation.h"
#include "tensor/tensor.h"

namespace tessera {

// activation(x), of x's shape and dtype (f32 or bf16). Backward overwrites the incoming gradient
// where nothing else holds it. When no gradient is recorded and x is the only handle on its memory
// (pass it by std::move), the result takes that memory.
Tensor Activate(Tensor x, Activation activation);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_ACTIVATION_H_
