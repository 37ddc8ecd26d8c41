// Batch normalisation (Ioffe and Szegedy, arXiv 1502.03167), channels last, with the activation
// that follows it. Statistics are f32, and of the biased variance, but for the running one.
//
// A training step composes the functions below. Sums are separate from what is made of them, so
// that several ranks can add theirs up in between and normalise with common statistics:
//   sums = BatchNormSums(x)            [all-reduce]   BatchNormStatisticsOf(sums, rows, ...)
//   BatchNorm(x, statistics, ...)
//   sums = BatchNormGradSums(dy, ...)  [all-reduce]   BatchNormGradInput(dy, ..., sums, rows, ...)
#ifndef TESSERA_TENSOR_OPS_BATCH_NORM_BATCH_NORM_H_
#define TESSERA_TENSOR_OPS_BATCH_NORM_BATCH_NORM_H_

#include <cstdint>

#include "tensor/ops/batch_norm/batch_norm_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// f64 [2, C]: sums of x and of x^2 over the rows of x [..., C], f32 or bf16.
Tensor BatchNormSums(const Tensor& x);

struct BatchNormStatistics {
  Tensor mean;  // f32 [C]
  Tensor rstd;  // f32 [C]: 1 / sqrt(variance + eps)
};

// Averages kept for evaluation: f32 [C] each.
struct RunningStatistics {
  Tensor mean;
  Tensor variance;
};

// From sums over `count` rows, at least one. Moves the running statistics to
// (1 - momentum) running + momentum batch, the batch's variance being the unbiased one (over
// count - 1, or 1 for a single row), as PyTorch does; momentum 0 leaves them alone.
BatchNormStatistics BatchNormStatisticsOf(const Tensor& sums, int64_t count, float eps,
                                          const RunningStatistics& running, double momentum);
// The running ones, for evaluation and frozen layers.
BatchNormStatistics BatchNormRunningStatistics(const RunningStatistics& running, float eps);

// The function of x that the statistics define: z = (x - mean) rstd gamma + beta, then the
// activation. gamma and beta f32 [C].
struct BatchNormTransform {
  BatchNormStatistics statistics;
  Tensor gamma;
  Tensor beta;
  Activation activation = Activation::kNone;
};

// A factor of the result per image and channel, f32 [B, C] for x [B, H, W, C], as squeeze-excite
// computes it from the means of activation(z); undefined: 1. In the backward pass, `dmeans` is the
// gradient of those means.
struct BatchNormGate {
  Tensor gate;
  Tensor dmeans;
};

// activation(z) gate: x [..., C], f32 or bf16 -> the same shape, of `out_dtype`.
Tensor BatchNorm(const Tensor& x, const BatchNormTransform& transform, const BatchNormGate& gate,
                 DType out_dtype);

// f32 [2, C]: the gradients of beta and of gamma from dy [..., C], f32 or bf16.
Tensor BatchNormGradSums(const Tensor& dy, const Tensor& x, const BatchNormTransform& transform);

// Gradient of x, written or added to dx, of x's shape and dtype. `sums` are those above over
// `count` rows, or undefined where the statistics do not depend on x.
void BatchNormGradInput(const Tensor& dy, const Tensor& x, const BatchNormTransform& transform,
                        const BatchNormGate& gate, const Tensor& sums, int64_t count,
                        const Tensor& dx, bool accumulate);

// f32 [B, C]: means of activation(z) over the pixels of each image, x [B, H, W, C].
Tensor BatchNormPool(const Tensor& x, const BatchNormTransform& transform);

// f32 [5, B, C]: the gradient of the gate, and four more sums for BatchNormSumsOfGated.
Tensor BatchNormGateSums(const Tensor& dy, const Tensor& x, const BatchNormTransform& transform);
// What BatchNormGradSums would give for the gradient of activation(z), dy gate + dmeans / pixels.
Tensor BatchNormSumsOfGated(const Tensor& gate_sums, const BatchNormGate& gate, int64_t pixels);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_BATCH_NORM_BATCH_NORM_H_
