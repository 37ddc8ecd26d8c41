#include "tensor/ops/depthwise_conv/depthwise_conv.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const DepthwiseConvArgs&)> depthwise_conv("depthwise_conv");
constinit KernelSlot<void(const DepthwiseConvGradWeightArgs&)> depthwise_conv_grad_weight(
    "depthwise_conv_grad_weight");

namespace ops {
namespace {

constexpr int64_t kTaps = 9;

void RunConv(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& y,
             bool residual, bool transposed, bool accumulate) {
  CHECK(x.rank() == 4 && x.shape() == y.shape() && x.dtype() == y.dtype() && IsFloat(x.dtype()) &&
        weight.numel() == x.dim(3) * kTaps && (!bias.defined() || bias.numel() == x.dim(3)))
      << "depthwise_conv: " << Describe(x) << " -> " << Describe(y) << ", weight "
      << Describe(weight) << ", bias " << Describe(bias);
  if (x.numel() == 0) return;
  depthwise_conv(x.device(),
                 DepthwiseConvArgs{.x = x.raw(),
                                   .weight = weight.data<float>(),
                                   .bias = bias.defined() ? bias.data<float>() : nullptr,
                                   .y = y.raw(),
                                   .batch = x.dim(0),
                                   .height = x.dim(1),
                                   .width = x.dim(2),
                                   .channels = x.dim(3),
                                   .residual = residual,
                                   .transposed = transposed,
                                   .accumulate = accumulate,
                                   .dtype = x.dtype()});
}

}  // namespace

Tensor DepthwiseConv(const Tensor& x, const Tensor& weight, const Tensor& bias, bool residual) {
  Tensor y = Tensor::Empty(x.shape(), x.dtype(), x.device());
  RunConv(x, weight, bias, y, residual, /*transposed=*/false, /*accumulate=*/false);
  return y;
}

void DepthwiseConvGradInput(const Tensor& dy, const Tensor& weight, bool residual, const Tensor& dx,
                            bool accumulate) {
  RunConv(dy, weight, Tensor(), dx, residual, /*transposed=*/true, accumulate);
}

void DepthwiseConvGradWeight(const Tensor& dy, const Tensor& x,
                             const DepthwiseConvGradients& gradients) {
  const auto& [dweight, dbias, accumulate_dweight, accumulate_dbias] = gradients;
  CHECK(x.rank() == 4 && dy.shape() == x.shape() && dy.dtype() == x.dtype() && IsFloat(x.dtype()) &&
        (!dweight.defined() || dweight.numel() == x.dim(3) * kTaps) &&
        (!dbias.defined() || dbias.numel() == x.dim(3)))
      << "depthwise_conv_grad_weight: dy " << Describe(dy) << ", x " << Describe(x)
      << " -> dweight " << Describe(dweight) << ", dbias " << Describe(dbias);
  if (x.numel() == 0) {
    if (dweight.defined() && !accumulate_dweight) dweight.FillZero();
    if (dbias.defined() && !accumulate_dbias) dbias.FillZero();
    return;
  }
  depthwise_conv_grad_weight(
      x.device(),
      DepthwiseConvGradWeightArgs{.dy = dy.raw(),
                                  .x = x.raw(),
                                  .dweight = dweight.defined() ? dweight.data<float>() : nullptr,
                                  .dbias = dbias.defined() ? dbias.data<float>() : nullptr,
                                  .batch = x.dim(0),
                                  .height = x.dim(1),
                                  .width = x.dim(2),
                                  .channels = x.dim(3),
                                  .accumulate_dweight = accumulate_dweight,
                                  .accumulate_dbias = accumulate_dbias,
                                  .dtype = x.dtype()});
}

}  // namespace ops
}  // namespace tessera
