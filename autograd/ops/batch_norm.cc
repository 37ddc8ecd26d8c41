#include "autograd/ops/batch_norm.h"

#include "autograd/tape.h"
#include "tensor/ops/activation/activation.h"
#include "tensor/ops/column_sum/column_sum.h"
#include "tensor/ops/describe.h"
#include "tensor/ops/matmul/matmul.h"

namespace tessera {
namespace {

template <typename T>
Tensor SumOverRanks(const Tensor& own, const Communicator* ranks) {
  if (ranks->size() == 1) return own;
  const Tensor sum = own.Clone();
  ranks->AllReduceSum(absl::MakeSpan(sum.data<T>(), sum.numel()));
  return sum;
}

ops::BatchNormStatistics StatisticsOf(const Tensor& x, const ops::RunningStatistics& running,
                                      const BatchNormOptions& options) {
  if (!options.batch_statistics) return ops::BatchNormRunningStatistics(running, options.eps);
  return ops::BatchNormStatisticsOf(SumOverRanks<double>(ops::BatchNormSums(x), options.ranks),
                                    NumRows(x) * options.ranks->size(), options.eps, running,
                                    options.momentum);
}

ops::BatchNormTransform TransformOf(const Tensor& x, const Tensor& weight, const Tensor& bias,
                                    const ops::RunningStatistics& running,
                                    const BatchNormOptions& options) {
  return {.statistics = StatisticsOf(x, running, options),
          .gamma = weight.Detach(),
          .beta = bias.Detach(),
          .activation = options.activation};
}

// Inputs of both nodes, in order; those after kBias are of squeeze-excite.
enum Input { kX, kWeight, kBias, kW1, kB1, kW2, kB2 };

// Gradients of the norm's parameters from the sums, which are theirs, and of x.
void NormGradients(const GradContext& g, const Tensor& dy, const Tensor& x,
                   const ops::BatchNormTransform& transform, const ops::BatchNormGate& gate,
                   const Tensor& sums, bool of_batch, const Communicator* ranks) {
  if (sums.defined()) {
    g.Add(kBias, sums.Slice(0, 1));
    g.Add(kWeight, sums.Slice(1, 2));
  }
  if (!g.wants(kX)) return;
  const GradDest dx = g.Dest(kX);
  ops::BatchNormGradInput(dy, x, transform, gate,
                          of_batch ? SumOverRanks<float>(sums, ranks) : Tensor(),
                          NumRows(x) * ranks->size(), dx.tensor, dx.accumulate);
}

// The gate of squeeze-excite and what its gradient needs.
struct Gate {
  Tensor means;   // [B, C]
  Tensor hidden;  // [B, R], before its activation
  Tensor logits;  // [B, C]
  Tensor value;   // [B, C]
};

Tensor Activated(const Tensor& x, Activation activation) {
  Tensor y = Tensor::Empty(x.shape(), x.dtype(), x.device());
  ops::ActivateTo(x, activation, y);
  return y;
}

Gate GateOf(const Tensor& means, const SqueezeExciteWeights& se) {
  Gate gate;
  gate.means = means;
  gate.hidden = ops::Linear(means, se.w1, se.b1, DType::kF32);
  gate.logits = ops::Linear(Activated(gate.hidden, Activation::kSilu), se.w2, se.b2, DType::kF32);
  gate.value = Activated(gate.logits, Activation::kSigmoid);
  return gate;
}

// Gradients of a layer y = x w^T + b from dy: those of its parameters, and the result of x.
Tensor LinearGradients(const GradContext& g, Input w_input, Input b_input, const Tensor& dy,
                       const Tensor& x, const Tensor& w) {
  if (g.wants(w_input)) {
    const GradDest dw = g.Dest(w_input);
    ops::LinearGradWeight(dy, x, dw.tensor, dw.accumulate);
  }
  if (g.wants(b_input)) {
    const GradDest db = g.Dest(b_input);
    ops::ColumnSum(dy, db.tensor, db.accumulate);
  }
  const Tensor dx = Tensor::Empty(x.shape(), DType::kF32, x.device());
  ops::LinearGradInput(dy, w, dx, /*accumulate=*/false);
  return dx;
}

// Gradient of the means from that of the gate, whose memory it overwrites.
Tensor GateGradients(const GradContext& g, const Tensor& dgate, const Gate& gate, const Tensor& w1,
                     const Tensor& w2) {
  ops::ActivateBackward(dgate, gate.logits, Activation::kSigmoid, {.dx = dgate});
  const Tensor dhidden =
      LinearGradients(g, kW2, kB2, dgate, Activated(gate.hidden, Activation::kSilu), w2);
  ops::ActivateBackward(dhidden, gate.hidden, Activation::kSilu, {.dx = dhidden});
  return LinearGradients(g, kW1, kB1, dhidden, gate.means, w1);
}

}  // namespace

Tensor BatchNorm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                 const ops::RunningStatistics& running, const BatchNormOptions& options,
                 DType out_dtype) {
  const ops::BatchNormTransform transform = TransformOf(x, weight, bias, running, options);
  Tensor y = ops::BatchNorm(x, transform, {}, out_dtype);
  Record("batch_norm", {&x, &weight, &bias}, {&y},
         [x = x.Detach(), transform, of_batch = options.batch_statistics,
          ranks = options.ranks](GradContext& g) {
           const Tensor dy = g.out();
           const bool needs_sums = of_batch || g.wants(kWeight) || g.wants(kBias);
           const Tensor sums = needs_sums ? ops::BatchNormGradSums(dy, x, transform) : Tensor();
           NormGradients(g, dy, x, transform, {}, sums, of_batch, ranks);
         });
  return y;
}

Tensor BatchNormSqueezeExcite(const Tensor& x, const Tensor& weight, const Tensor& bias,
                              const ops::RunningStatistics& running,
                              const BatchNormOptions& options, const SqueezeExciteWeights& se,
                              DType out_dtype) {
  const ops::BatchNormTransform transform = TransformOf(x, weight, bias, running, options);
  const Gate gate = GateOf(ops::BatchNormPool(x, transform), se);
  Tensor y = ops::BatchNorm(x, transform, {.gate = gate.value}, out_dtype);
  Record("batch_norm_squeeze_excite", {&x, &weight, &bias, &se.w1, &se.b1, &se.w2, &se.b2}, {&y},
         [x = x.Detach(), transform, gate, w1 = se.w1.Detach(), w2 = se.w2.Detach(),
          of_batch = options.batch_statistics, ranks = options.ranks](GradContext& g) {
           const Tensor dy = g.out();
           const Tensor gate_sums = ops::BatchNormGateSums(dy, x, transform);
           const Tensor dgate = gate_sums.Slice(0, 1).Reshape(gate.value.shape());
           const ops::BatchNormGate gated = {gate.value, GateGradients(g, dgate, gate, w1, w2)};
           const Tensor sums = ops::BatchNormSumsOfGated(gate_sums, gated, NumRows(x) / x.dim(0));
           NormGradients(g, dy, x, transform, gated, sums, of_batch, ranks);
         });
  return y;
}

}  // namespace tessera
