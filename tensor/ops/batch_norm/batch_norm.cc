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

namespace ops {
namespace {

BatchNormAffine AffineOf(const Tensor& x, const BatchNormTransform& transform) {
  const auto& [statistics, gamma, beta, activation] = transform;
  const int64_t channels = x.rank() == 0 ? 0 : x.dim(-1);
  CHECK(IsFloat(x.dtype()) && channels > 0 && statistics.mean.numel() == channels &&
        statistics.rstd.numel() == channels && gamma.numel() == channels &&
        beta.numel() == channels)
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

Tensor BatchNorm(const Tensor& x, const BatchNormTransform& transform, DType out_dtype) {
  const BatchNormAffine affine = AffineOf(x, transform);
  CHECK(IsFloat(out_dtype)) << "batch_norm: -> " << Name(out_dtype);
  Tensor y = Tensor::Empty(x.shape(), out_dtype, x.device());
  if (affine.rows == 0) return y;
  batch_norm(x.device(), BatchNormArgs{.affine = affine,
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
                        const Tensor& sums, int64_t count, const Tensor& dx, bool accumulate) {
  const BatchNormAffine affine = AffineOf(x, transform);
  CHECK(IsFloat(dy.dtype()) && dy.numel() == x.numel() && dx.numel() == x.numel() &&
        dx.dtype() == x.dtype() && (!sums.defined() || sums.numel() == 2 * affine.channels))
      << "batch_norm_grad_input: dy " << Describe(dy) << ", x " << Describe(x) << ", sums "
      << Describe(sums) << " -> dx " << Describe(dx);
  if (affine.rows == 0) return;
  batch_norm_grad_input(
      x.device(), BatchNormGradInputArgs{.affine = affine,
                                         .dy = dy.raw(),
                                         .x = x.raw(),
                                         .sums = sums.defined() ? sums.data<float>() : nullptr,
                                         .dx = dx.raw(),
                                         .count = count,
                                         .accumulate = accumulate,
                                         .dy_dtype = dy.dtype(),
                                         .x_dtype = x.dtype()});
}

}  // namespace ops
}  // namespace tessera
