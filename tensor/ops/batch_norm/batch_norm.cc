#include "tensor/ops/batch_norm/batch_norm.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const BatchNormSumsArgs&)> batch_norm_sums("batch_norm_sums");
constinit KernelSlot<void(const BatchNormStatisticsArgs&)> batch_norm_statistics(
    "batch_norm_statistics");
constinit KernelSlot<void(const BatchNormArgs&)> batch_norm("batch_norm");
constinit KernelSlot<void(const BatchNormGradSumsArgs&)> batch_norm_grad_sums(
    "batch_norm_grad_sums");
constinit KernelSlot<void(const BatchNormGradInputArgs&)> batch_norm_grad_input(
    "batch_norm_grad_input");
constinit KernelSlot<void(const BatchNormPoolArgs&)> batch_norm_pool("batch_norm_pool");
constinit KernelSlot<void(const BatchNormGateSumsArgs&)> batch_norm_gate_sums(
    "batch_norm_gate_sums");
constinit KernelSlot<void(const BatchNormGateCombineArgs&)> batch_norm_gate_combine(
    "batch_norm_gate_combine");

namespace ops {
namespace {

BatchNormAffine AffineOf(const Tensor& x, const BatchNormTransform& transform) {
  const auto& [statistics, gamma, beta, activation] = transform;
  const int64_t channels = x.rank() == 0 ? 0 : x.dim(-1);
  CHECK(IsFloat(x.dtype()) && channels > 0 && statistics.mean.numel() == channels &&
        statistics.rstd.numel() == channels && gamma.numel() == channels &&
        beta.numel() == channels && WithBatchNormActivation(activation, [](auto) {}))
      << "batch_norm: " << Describe(x) << ", mean " << Describe(statistics.mean) << ", rstd "
      << Describe(statistics.rstd) << ", gamma " << Describe(gamma) << ", beta " << Describe(beta);
  return {.mean = statistics.mean.data<float>(),
          .rstd = statistics.rstd.data<float>(),
          .gamma = gamma.data<float>(),
          .beta = beta.data<float>(),
          .rows = NumRows(x),
          .channels = channels,
          .activation = activation};
}

// Rows of an image of x [B, ..., C].
int64_t Pixels(const Tensor& x) { return x.dim(0) == 0 ? 0 : NumRows(x) / x.dim(0); }

BatchNormGateArgs GateArgs(const Tensor& x, const BatchNormGate& gate) {
  const auto fits = [&](const Tensor& t) {
    return !t.defined() || (x.rank() >= 3 && t.numel() == x.dim(0) * x.dim(-1));
  };
  CHECK(fits(gate.gate) && fits(gate.dmeans))
      << "batch_norm: " << Describe(x) << ", gate " << Describe(gate.gate) << ", dmeans "
      << Describe(gate.dmeans);
  if (!gate.gate.defined()) return {nullptr, nullptr, NumRows(x)};
  return {.gate = gate.gate.data<float>(),
          .dmeans = gate.dmeans.defined() ? gate.dmeans.data<float>() : nullptr,
          .pixels = Pixels(x)};
}

BatchNormStatistics Statistics(const Tensor& sums, int64_t count, float eps,
                               const RunningStatistics& running, double momentum) {
  const Tensor& like = sums.defined() ? sums : running.mean;
  const int64_t channels = like.dim(-1);
  CHECK(running.mean.numel() == channels && running.variance.numel() == channels &&
        (!sums.defined() || (sums.dtype() == DType::kF64 && sums.numel() == 2 * channels)))
      << "batch_norm: sums " << Describe(sums) << ", running mean " << Describe(running.mean)
      << ", running variance " << Describe(running.variance);
  BatchNormStatistics result{Tensor::Empty({channels}, DType::kF32, like.device()),
                             Tensor::Empty({channels}, DType::kF32, like.device())};
  batch_norm_statistics(
      like.device(), BatchNormStatisticsArgs{.sums = sums.defined() ? sums.data<double>() : nullptr,
                                             .running_mean = running.mean.data<float>(),
                                             .running_var = running.variance.data<float>(),
                                             .mean = result.mean.data<float>(),
                                             .rstd = result.rstd.data<float>(),
                                             .count = count,
                                             .channels = channels,
                                             .momentum = momentum,
                                             .eps = eps});
  return result;
}

}  // namespace

Tensor BatchNormSums(const Tensor& x) {
  CHECK(x.rank() >= 1 && IsFloat(x.dtype())) << "batch_norm_sums: " << Describe(x);
  const int64_t rows = NumRows(x);
  const Tensor sums = Tensor::Empty({2, x.dim(-1)}, DType::kF64, x.device());
  if (rows == 0) {
    sums.FillZero();
    return sums;
  }
  batch_norm_sums(x.device(), BatchNormSumsArgs{.x = x.raw(),
                                                .sums = sums.data<double>(),
                                                .rows = rows,
                                                .channels = x.dim(-1),
                                                .x_dtype = x.dtype()});
  return sums;
}

BatchNormStatistics BatchNormStatisticsOf(const Tensor& sums, int64_t count, float eps,
                                          const RunningStatistics& running, double momentum) {
  CHECK(sums.defined() && count > 0) << "batch_norm: statistics of " << count << " rows";
  return Statistics(sums, count, eps, running, momentum);
}

BatchNormStatistics BatchNormRunningStatistics(const RunningStatistics& running, float eps) {
  return Statistics(Tensor(), 0, eps, running, 0.0);
}

Tensor BatchNorm(const Tensor& x, const BatchNormTransform& transform, const BatchNormGate& gate,
                 DType out_dtype) {
  const BatchNormAffine affine = AffineOf(x, transform);
  CHECK(IsFloat(out_dtype)) << "batch_norm: -> " << Name(out_dtype);
  Tensor y = Tensor::Empty(x.shape(), out_dtype, x.device());
  if (affine.rows == 0) return y;
  batch_norm(x.device(), BatchNormArgs{.affine = affine,
                                       .gate = GateArgs(x, gate),
                                       .x = x.raw(),
                                       .y = y.raw(),
                                       .x_dtype = x.dtype(),
                                       .y_dtype = out_dtype});
  return y;
}

Tensor BatchNormGradSums(const Tensor& dy, const Tensor& x, const BatchNormTransform& transform) {
  const BatchNormAffine affine = AffineOf(x, transform);
  CHECK(IsFloat(dy.dtype()) && dy.numel() == x.numel())
      << "batch_norm_grad_sums: dy " << Describe(dy) << ", x " << Describe(x);
  const Tensor sums = Tensor::Empty({2, affine.channels}, DType::kF32, x.device());
  if (affine.rows == 0) {
    sums.FillZero();
    return sums;
  }
  batch_norm_grad_sums(x.device(), BatchNormGradSumsArgs{.affine = affine,
                                                         .dy = dy.raw(),
                                                         .x = x.raw(),
                                                         .sums = sums.data<float>(),
                                                         .dy_dtype = dy.dtype(),
                                                         .x_dtype = x.dtype()});
  return sums;
}

void BatchNormGradInput(const Tensor& dy, const Tensor& x, const BatchNormTransform& transform,
                        const BatchNormGate& gate, const Tensor& sums, int64_t count,
                        const Tensor& dx, bool accumulate) {
  const BatchNormAffine affine = AffineOf(x, transform);
  CHECK(IsFloat(dy.dtype()) && dy.numel() == x.numel() && dx.numel() == x.numel() &&
        dx.dtype() == x.dtype() && (!sums.defined() || sums.numel() == 2 * affine.channels))
      << "batch_norm_grad_input: dy " << Describe(dy) << ", x " << Describe(x) << ", sums "
      << Describe(sums) << " -> dx " << Describe(dx);
  if (affine.rows == 0) return;
  batch_norm_grad_input(
      x.device(), BatchNormGradInputArgs{.affine = affine,
                                         .gate = GateArgs(x, gate),
                                         .dy = dy.raw(),
                                         .x = x.raw(),
                                         .sums = sums.defined() ? sums.data<float>() : nullptr,
                                         .dx = dx.raw(),
                                         .count = count,
                                         .accumulate = accumulate,
                                         .dy_dtype = dy.dtype(),
                                         .x_dtype = x.dtype()});
}

Tensor BatchNormPool(const Tensor& x, const BatchNormTransform& transform) {
  const BatchNormAffine affine = AffineOf(x, transform);
  CHECK(x.rank() >= 3 && (x.dim(0) == 0 || Pixels(x) > 0)) << "batch_norm_pool: " << Describe(x);
  Tensor pooled = Tensor::Empty({x.dim(0), affine.channels}, DType::kF32, x.device());
  if (affine.rows == 0) return pooled;
  batch_norm_pool(x.device(), BatchNormPoolArgs{.affine = affine,
                                                .x = x.raw(),
                                                .pooled = pooled.data<float>(),
                                                .pixels = Pixels(x),
                                                .x_dtype = x.dtype()});
  return pooled;
}

Tensor BatchNormGateSums(const Tensor& dy, const Tensor& x, const BatchNormTransform& transform) {
  const BatchNormAffine affine = AffineOf(x, transform);
  CHECK(x.rank() >= 3 && IsFloat(dy.dtype()) && dy.numel() == x.numel())
      << "batch_norm_gate_sums: dy " << Describe(dy) << ", x " << Describe(x);
  const Tensor sums =
      Tensor::Empty({kBatchNormGateSums, x.dim(0), affine.channels}, DType::kF32, x.device());
  if (affine.rows == 0) return sums;
  batch_norm_gate_sums(x.device(), BatchNormGateSumsArgs{.affine = affine,
                                                         .dy = dy.raw(),
                                                         .x = x.raw(),
                                                         .sums = sums.data<float>(),
                                                         .pixels = Pixels(x),
                                                         .dy_dtype = dy.dtype(),
                                                         .x_dtype = x.dtype()});
  return sums;
}

Tensor BatchNormSumsOfGated(const Tensor& gate_sums, const BatchNormGate& gate, int64_t pixels) {
  CHECK(gate_sums.rank() == 3 && gate_sums.dim(0) == kBatchNormGateSums &&
        gate.gate.numel() * kBatchNormGateSums == gate_sums.numel() &&
        gate.dmeans.numel() == gate.gate.numel())
      << "batch_norm_gate_combine: " << Describe(gate_sums) << ", gate " << Describe(gate.gate)
      << ", dmeans " << Describe(gate.dmeans);
  const int64_t images = gate_sums.dim(1), channels = gate_sums.dim(2);
  Tensor sums = Tensor::Empty({2, channels}, DType::kF32, gate_sums.device());
  batch_norm_gate_combine(gate_sums.device(),
                          BatchNormGateCombineArgs{.gate_sums = gate_sums.data<float>(),
                                                   .gate = gate.gate.data<float>(),
                                                   .dmeans = gate.dmeans.data<float>(),
                                                   .sums = sums.data<float>(),
                                                   .images = images,
                                                   .pixels = pixels,
                                                   .channels = channels});
  return sums;
}

}  // namespace ops
}  // namespace tessera
