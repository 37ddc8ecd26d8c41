// Differentiable batch norm. Formulas: tensor/ops/batch_norm/batch_norm.h.
#ifndef TESSERA_AUTOGRAD_OPS_BATCH_NORM_H_
#define TESSERA_AUTOGRAD_OPS_BATCH_NORM_H_

#include "tensor/ops/batch_norm/batch_norm.h"

namespace tessera {

struct BatchNormOptions {
  float eps = 1e-5f;
  // Weight of the batch in the running statistics; 0 leaves them alone.
  double momentum = 0.1;
  bool batch_statistics = true;  // else the running ones are used, as constants
  Activation activation = Activation::kNone;
};

// activation((x - mean) rstd weight + bias): x [..., C] f32 or bf16, weight and bias f32 [C] -> y
// of `out_dtype`. Batch statistics are those of all rows of x, of which there is at least one.
Tensor BatchNorm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                 const ops::RunningStatistics& running, const BatchNormOptions& options,
                 DType out_dtype);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_BATCH_NORM_H_
