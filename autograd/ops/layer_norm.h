// Differentiable layer normalisation.
#ifndef TESSERA_AUTOGRAD_OPS_LAYER_NORM_H_
#define TESSERA_AUTOGRAD_OPS_LAYER_NORM_H_

#include "tensor/tensor.h"

namespace tessera {

// y = (x - mean) * rstd * weight + bias over the last axis: x [..., C] f32 or bf16, weight and bias
// f32 [C], y [..., C] of `out_dtype`. The gradient of x has x's dtype; see ops::LayerNorm.
Tensor LayerNorm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps,
                 DType out_dtype);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_LAYER_NORM_H_
