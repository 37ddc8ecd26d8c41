// Differentiable batch norm, alone and with squeeze-excite behind it. Formulas:
// tensor/ops/batch_norm/batch_norm.h.
#ifndef TESSERA_AUTOGRAD_OPS_BATCH_NORM_H_
#define TESSERA_AUTOGRAD_OPS_BATCH_NORM_H_

#include "core/communicator.h"
#include "tensor/ops/batch_norm/batch_norm.h"

namespace tessera {

struct BatchNormOptions {
  float eps = 1e-5f;
  // Weight of the batch in the running statistics; 0 leaves them alone.
  double momentum = 0.1;
  bool batch_statistics = true;  // else the running ones are used, as constants
  Activation activation = Activation::kNone;
  // Ranks that each have as many rows: statistics and gradients of x are those of all their rows
  // together, gradients of weight and bias of this rank's.
  const Communicator* ranks = &Communicator::Alone();
};

// activation((x - mean) rstd weight + bias): x [..., C] f32 or bf16, weight and bias f32 [C] -> y
// of `out_dtype`. Batch statistics are those of all rows of x, of which there is at least one.
Tensor BatchNorm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                 const ops::RunningStatistics& running, const BatchNormOptions& options,
                 DType out_dtype);

// The two layers of squeeze-excite: w1 [R, C], b1 [R], w2 [C, R], b2 [C], all f32.
struct SqueezeExciteWeights {
  Tensor w1;
  Tensor b1;
  Tensor w2;
  Tensor b2;
};

// a g, where a is the batch norm above of x [B, H, W, C] and g [B, C] its gate (Hu et al., arXiv
// 1709.01507), sigmoid(w2 silu(w1 m + b1) + b2) of the means m [B, C] of a over the pixels.
//
// One node, which keeps x alone: a is computed again wherever it is needed, in five passes over the
// maps for both directions beside those for the statistics.
Tensor BatchNormSqueezeExcite(const Tensor& x, const Tensor& weight, const Tensor& bias,
                              const ops::RunningStatistics& running,
                              const BatchNormOptions& options,
                              const SqueezeExciteWeights& squeeze_excite, DType out_dtype);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_BATCH_NORM_H_
