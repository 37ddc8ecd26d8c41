#include "tensor/ops/conv2d/conv2d.h"

namespace tessera {

constinit KernelSlot<void(const Conv2dArgs&)> conv2d_forward("conv2d_forward");
constinit KernelSlot<void(const Conv2dArgs&)> conv2d_backward_input("conv2d_backward_input");
constinit KernelSlot<void(const Conv2dArgs&)> conv2d_backward_weight("conv2d_backward_weight");

namespace ops {
namespace {

Conv2dArgs ArgsFor(const Shape& x, const Shape& weight, const Conv2dGeometry& geometry) {
  const Shape y = Conv2dShape(x, weight, geometry);
  Conv2dArgs args = {};
  args.batch = x[0];
  args.in_height = x[1];
  args.in_width = x[2];
  args.in_channels = x[3];
  args.out_height = y[1];
  args.out_width = y[2];
  args.out_channels = y[3];
  args.kernel_height = weight[2];
  args.kernel_width = weight[3];
  args.geometry = geometry;
  return args;
}

}  // namespace

Shape Conv2dShape(const Shape& x, const Shape& weight, const Conv2dGeometry& g) {
  CHECK(x.rank() == 4 && weight.rank() == 4 && x[3] == weight[1])
      << "conv2d: " << x << " with weight " << weight;
  CHECK(x[1] + g.pad_top + g.pad_bottom >= weight[2] &&
        x[2] + g.pad_left + g.pad_right >= weight[3])
      << "conv2d: " << x << " is smaller than the kernel " << weight;
  return {x[0], g.OutHeight(x[1], weight[2]), g.OutWidth(x[2], weight[3]), weight[0]};
}

Tensor Conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv2dGeometry& geometry, DType out_dtype) {
  Tensor y = Tensor::Empty(Conv2dShape(x.shape(), weight.shape(), geometry), out_dtype, x.device());
  if (y.numel() == 0) return y;
  Conv2dArgs args = ArgsFor(x.shape(), weight.shape(), geometry);
  args.in_dtype = x.dtype();
  args.out_dtype = out_dtype;
  args.x = x.raw();
  args.weight = weight.data<float>();
  args.bias = bias.defined() ? bias.data<float>() : nullptr;
  args.y = y.raw();
  conv2d_forward(x.device(), args);
  return y;
}

Tensor Conv2dGradInput(const Tensor& dy, const Tensor& weight, const Shape& x_shape, DType x_dtype,
                       const Conv2dGeometry& geometry) {
  CHECK(dy.shape() == Conv2dShape(x_shape, weight.shape(), geometry))
      << "conv2d, input gradient: dy " << dy.shape() << " for x " << x_shape;
  Tensor dx = Tensor::Empty(x_shape, x_dtype, dy.device());
  if (dx.numel() == 0) return dx;
  Conv2dArgs args = ArgsFor(x_shape, weight.shape(), geometry);
  args.in_dtype = x_dtype;
  args.out_dtype = dy.dtype();
  args.weight = weight.data<float>();
  args.dy = dy.raw();
  args.dx = dx.raw();
  conv2d_backward_input(dy.device(), args);
  return dx;
}

void Conv2dGradWeight(const Tensor& dy, const Tensor& x, const Tensor& dweight,
                      const Conv2dGeometry& geometry, bool accumulate) {
  CHECK(dy.shape() == Conv2dShape(x.shape(), dweight.shape(), geometry))
      << "conv2d, weight gradient: dy " << dy.shape() << " for x " << x.shape();
  if (dy.numel() == 0) {
    if (!accumulate) dweight.FillZero();
    return;
  }
  Conv2dArgs args = ArgsFor(x.shape(), dweight.shape(), geometry);
  args.in_dtype = x.dtype();
  args.out_dtype = dy.dtype();
  args.x = x.raw();
  args.dy = dy.raw();
  args.dweight = dweight.data<float>();
  args.accumulate = accumulate;
  conv2d_backward_weight(dy.device(), args);
}

}  // namespace ops
}  // namespace tessera
