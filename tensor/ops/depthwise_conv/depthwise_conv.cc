#include "tensor/ops/depthwise_conv/depthwise_conv.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const DepthwiseConvArgs&)> depthwise_conv("depthwise_conv");
constinit KernelSlot<void(const DepthwiseConvGradInputArgs&)> depthwise_conv_grad_input(
    "depthwise_conv_grad_input");
constinit KernelSlot<void(const DepthwiseConvGradWeightArgs&)> depthwise_conv_grad_weight(
    "depthwise_conv_grad_weight");

DepthwiseConvShape DepthwiseConvShapeOf(const Shape& x, int64_t kernel_size,
                                        const Conv2dGeometry& g) {
  CHECK(x.rank() == 4 && (kernel_size == 3 || kernel_size == 5 || kernel_size == 7) &&
        (g.stride == 1 || g.stride == 2))
      << "depthwise_conv: " << x << ", kernel " << kernel_size << ", stride " << g.stride;
  CHECK(x[1] + g.pad_top + g.pad_bottom >= kernel_size &&
        x[2] + g.pad_left + g.pad_right >= kernel_size)
      << "depthwise_conv: " << x << " is smaller than the kernel " << kernel_size;
  return {.batch = x[0],
          .height = x[1],
          .width = x[2],
          .channels = x[3],
          .out_height = g.OutHeight(x[1], kernel_size),
          .out_width = g.OutWidth(x[2], kernel_size),
          .kernel_size = kernel_size,
          .geometry = g};
}

namespace ops {
namespace {

Shape OutShape(const DepthwiseConvShape& s) {
  return {s.batch, s.out_height, s.out_width, s.channels};
}

// The shape of a convolution of x with `weight`, which fits it.
DepthwiseConvShape ShapeOf(const Shape& x, const Tensor& weight, const Conv2dGeometry& geometry,
                           bool residual) {
  CHECK(weight.rank() == 4 && weight.dim(0) == x[3] && weight.dim(1) == 1 &&
        weight.dim(2) == weight.dim(3))
      << "depthwise_conv: " << x << " with weight " << Describe(weight);
  CHECK(!residual || geometry == Conv2dGeometry::Centred(weight.dim(2)))
      << "depthwise_conv: x can be added with stride 1 and padding K / 2 only";
  return DepthwiseConvShapeOf(x, weight.dim(2), geometry);
}

}  // namespace

Tensor DepthwiseConv(const Tensor& x, const Tensor& weight, const Tensor& bias,
                     const Conv2dGeometry& geometry, bool residual) {
  const DepthwiseConvShape shape = ShapeOf(x.shape(), weight, geometry, residual);
  CHECK(IsFloat(x.dtype()) && (!bias.defined() || bias.numel() == shape.channels))
      << "depthwise_conv: " << Describe(x) << ", bias " << Describe(bias);
  Tensor y = Tensor::Empty(OutShape(shape), x.dtype(), x.device());
  if (y.numel() == 0) return y;
  depthwise_conv(x.device(),
                 DepthwiseConvArgs{.shape = shape,
                                   .dtype = x.dtype(),
                                   .x = x.raw(),
                                   .x_stride = shape.channels,
                                   .weight = weight.data<float>(),
                                   .bias = bias.defined() ? bias.data<float>() : nullptr,
                                   .y = y.raw(),
                                   .y_stride = shape.channels,
                                   .residual = residual,
                                   .accumulate = false});
  return y;
}

void DepthwiseConvGradInput(const Tensor& dy, const Tensor& weight, const Conv2dGeometry& geometry,
                            bool residual, const Tensor& dx, bool accumulate) {
  const DepthwiseConvShape shape = ShapeOf(dx.shape(), weight, geometry, residual);
  CHECK(dy.shape() == OutShape(shape) && dy.dtype() == dx.dtype() && IsFloat(dx.dtype()))
      << "depthwise_conv_grad_input: dy " << Describe(dy) << " -> dx " << Describe(dx);
  if (dx.numel() == 0) return;
  depthwise_conv_grad_input(dx.device(), DepthwiseConvGradInputArgs{.shape = shape,
                                                                    .dtype = dx.dtype(),
                                                                    .dy = dy.raw(),
                                                                    .dy_stride = shape.channels,
                                                                    .weight = weight.data<float>(),
                                                                    .dx = dx.raw(),
                                                                    .dx_stride = shape.channels,
                                                                    .residual = residual,
                                                                    .accumulate = accumulate});
}

void DepthwiseConvGradWeight(const Tensor& dy, const Tensor& x, int64_t kernel_size,
                             const Conv2dGeometry& geometry,
                             const DepthwiseConvGradients& gradients) {
  const auto& [dweight, dbias, accumulate_dweight, accumulate_dbias] = gradients;
  const DepthwiseConvShape shape = DepthwiseConvShapeOf(x.shape(), kernel_size, geometry);
  CHECK(dy.shape() == OutShape(shape) && dy.dtype() == x.dtype() && IsFloat(x.dtype()) &&
        (!dweight.defined() || dweight.numel() == shape.channels * shape.taps()) &&
        (!dbias.defined() || dbias.numel() == shape.channels))
      << "depthwise_conv_grad_weight: dy " << Describe(dy) << ", x " << Describe(x)
      << " -> dweight " << Describe(dweight) << ", dbias " << Describe(dbias);
  if (x.numel() == 0) {
    if (dweight.defined() && !accumulate_dweight) dweight.FillZero();
    if (dbias.defined() && !accumulate_dbias) dbias.FillZero();
    return;
  }
  depthwise_conv_grad_weight(
      x.device(),
      DepthwiseConvGradWeightArgs{.shape = shape,
                                  .dtype = x.dtype(),
                                  .dy = dy.raw(),
                                  .dy_stride = shape.channels,
                                  .x = x.raw(),
                                  .x_stride = shape.channels,
                                  .dweight = dweight.defined() ? dweight.data<float>() : nullptr,
                                  .dbias = dbias.defined() ? dbias.data<float>() : nullptr,
                                  .accumulate_dweight = accumulate_dweight,
                                  .accumulate_dbias = accumulate_dbias});
}

}  // namespace ops
}  // namespace tessera
