#include "tensor/ops/layer_norm/layer_norm.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const LayerNormArgs&)> layer_norm("layer_norm");
constinit KernelSlot<void(const LayerNormBackwardArgs&)> layer_norm_backward("layer_norm_backward");

namespace ops {

LayerNormResult LayerNorm(const Tensor& x, const Tensor& gamma, const Tensor& beta, float eps,
                          DType out_dtype) {
  CHECK(x.rank() >= 1 && gamma.numel() == x.dim(-1) && beta.numel() == x.dim(-1) &&
        IsFloat(x.dtype()) && IsFloat(out_dtype))
      << "layer_norm: " << Describe(x) << " -> " << Name(out_dtype) << ", gamma " << Describe(gamma)
      << ", beta " << Describe(beta);
  const int64_t rows = NumRows(x);
  LayerNormResult result{Tensor::Empty(x.shape(), out_dtype, x.device()),
                         Tensor::Empty({rows}, DType::kF32, x.device()),
                         Tensor::Empty({rows}, DType::kF32, x.device())};
  if (rows == 0) return result;
  layer_norm(x.device(), LayerNormArgs{.x = x.raw(),
                                       .gamma = gamma.data<float>(),
                                       .beta = beta.data<float>(),
                                       .y = result.y.raw(),
                                       .mean = result.mean.data<float>(),
                                       .rstd = result.rstd.data<float>(),
                                       .rows = rows,
                                       .channels = x.dim(-1),
                                       .eps = eps,
                                       .x_dtype = x.dtype(),
                                       .y_dtype = out_dtype});
  return result;
}

void LayerNormBackward(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd,
                       const Tensor& gamma, const LayerNormGradients& gradients) {
  const auto& [dx, dgamma, dbeta, accumulate_dx, accumulate_dgamma, accumulate_dbeta] = gradients;
  const int64_t rows = NumRows(x);
  const int64_t channels = x.dim(-1);
  CHECK(dy.numel() == x.numel() && mean.numel() == rows && rstd.numel() == rows &&
        gamma.numel() == channels && IsFloat(dy.dtype()) && IsFloat(x.dtype()) &&
        (!dx.defined() || (dx.numel() == x.numel() && dx.dtype() == x.dtype())) &&
        (!dgamma.defined() || dgamma.numel() == channels) &&
        (!dbeta.defined() || dbeta.numel() == channels))
      << "layer_norm_backward: dy " << Describe(dy) << ", x " << Describe(x) << ", mean "
      << Describe(mean) << ", rstd " << Describe(rstd) << ", gamma " << Describe(gamma) << " -> dx "
      << Describe(dx) << ", dgamma " << Describe(dgamma) << ", dbeta " << Describe(dbeta);
  if (rows == 0) {
    if (dgamma.defined() && !accumulate_dgamma) dgamma.FillZero();
    if (dbeta.defined() && !accumulate_dbeta) dbeta.FillZero();
    return;
  }
  layer_norm_backward(
      x.device(), LayerNormBackwardArgs{.dy = dy.raw(),
                                        .x = x.raw(),
                                        .mean = mean.data<float>(),
                                        .rstd = rstd.data<float>(),
                                        .gamma = gamma.data<float>(),
                                        .dx = dx.raw(),
                                        .dgamma = dgamma.defined() ? dgamma.data<float>() : nullptr,
                                        .dbeta = dbeta.defined() ? dbeta.data<float>() : nullptr,
                                        .rows = rows,
                                        .channels = channels,
                                        .accumulate_dx = accumulate_dx,
                                        .accumulate_dgamma = accumulate_dgamma,
                                        .accumulate_dbeta = accumulate_dbeta,
                                        .dy_dtype = dy.dtype(),
                                        .x_dtype = x.dtype()});
}

}  // namespace ops
}  // namespace tessera
