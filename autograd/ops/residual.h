// Differentiable addition of a branch to the residual stream, with drop path.
#ifndef TESSERA_AUTOGRAD_OPS_RESIDUAL_H_
#define TESSERA_AUTOGRAD_OPS_RESIDUAL_H_

#include "tensor/tensor.h"

namespace tessera {

// y[b] = x[b] + scale[b] * r[b]: x and y f32 [B, ...], r f32 or bf16 of as many elements; scale f32
// [B] holds 0 for a dropped sample and 1 / keep probability for another, undefined means 1. It gets
// no gradient. The gradient of x is that of y, without a copy; that of r has r's dtype. If r is f32
// and the only handle on its memory (pass it by std::move), y takes that memory.
Tensor AddResidual(const Tensor& x, Tensor r, const Tensor& scale);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_RESIDUAL_H_
