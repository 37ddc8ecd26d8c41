// Layer normalisation over the last axis (Ba et al., arXiv 1607.06450), statistics in f32.
#ifndef TESSERA_TENSOR_OPS_LAYER_NORM_LAYER_NORM_H_
#define TESSERA_TENSOR_OPS_LAYER_NORM_LAYER_NORM_H_

#include <cstdint>

#include "tensor/ops/layer_norm/layer_norm_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

struct LayerNormResult {
  Tensor y;     // [..., C]
  Tensor mean;  // f32, one per row
  Tensor rstd;  // f32, one per row: 1 / sqrt(biased variance + eps)
};

// y = (x - mean) * rstd * gamma + beta per row: x [..., C] f32 or bf16, gamma and beta f32 [C]; y
// of `out_dtype`.
LayerNormResult LayerNorm(const Tensor& x, const Tensor& gamma, const Tensor& beta, float eps,
                          DType out_dtype);

// Where the gradients of a layer norm go; undefined tensors are not wanted.
struct LayerNormGradients {
  Tensor dx;      // [..., C], of x's dtype
  Tensor dgamma;  // f32 [C]
  Tensor dbeta;   // f32 [C]
  bool accumulate_dx = false;
  bool accumulate_dgamma = false;
  bool accumulate_dbeta = false;
};

// Gradients of y's input and parameters from dy [..., C], f32 or bf16.
void LayerNormBackward(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd,
                       const Tensor& gamma, const LayerNormGradients& gradients);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_LAYER_NORM_LAYER_NORM_H_
