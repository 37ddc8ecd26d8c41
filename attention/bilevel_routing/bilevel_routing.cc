#include "attention/bilevel_routing/bilevel_routing.h"

#include <algorithm>
#include <cmath>

#include "attention/attention_map.h"
#include "autograd/ops/fit_map.h"
#include "autograd/tape.h"
#include "tensor/ops/depthwise_conv/depthwise_conv.h"
#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const RouteArgs&)> bilevel_routing_route("bilevel_routing_route");
constinit KernelSlot<void(const RoutedAttentionArgs&)> bilevel_routing_forward(
    "bilevel_routing_forward");
constinit KernelSlot<void(const RoutedAttentionGradArgs&)> bilevel_routing_backward(
    "bilevel_routing_backward");

namespace {

RoutedAttentionShape CheckedShape(const Tensor& qkv, const Routing& routing) {
  CHECK(qkv.rank() == 4 && IsFloat(qkv.dtype()) && routing.num_heads > 0 &&
        qkv.dim(3) % (3 * routing.num_heads) == 0 && routing.region_height > 0 &&
        routing.region_width > 0)
      << "bilevel_routing: qkv " << Describe(qkv) << ", " << routing.num_heads
      << " heads, regions of " << routing.region_height << " x " << routing.region_width;
  const RoutedAttentionShape shape = {.batch = qkv.dim(0),
                                      .height = qkv.dim(1),
                                      .width = qkv.dim(2),
                                      .num_heads = routing.num_heads,
                                      .head_dim = qkv.dim(3) / (3 * routing.num_heads),
                                      .region_height = routing.region_height,
                                      .region_width = routing.region_width,
                                      .topk = routing.topk,
                                      .scale = routing.scale};
  CHECK(routing.topk > 0 && (qkv.numel() == 0 || routing.topk <= shape.regions()))
      << "bilevel_routing: " << routing.topk << " of " << shape.regions() << " regions";
  return shape;
}

Shape RoutesShape(const RoutedAttentionShape& s) { return {s.batch, s.regions(), s.topk}; }

// Inputs of the node, in order.
enum Input { kQkv, kX, kWeight, kBias };

// The part of a tensor [B, H, W, 3C] that holds v.
char* Values(const RoutedAttentionShape& s, const Tensor& qkv) {
  return static_cast<char*>(qkv.raw()) +
         2 * s.channels() * static_cast<int64_t>(SizeOf(qkv.dtype()));
}

// LePE of v, where it lies in qkv, or of its own input.
class LepeConvolution {
 public:
  LepeConvolution(const RoutedAttentionShape& s, const Tensor& qkv, const Lepe& lepe)
      : shape_(DepthwiseConvShapeOf({s.batch, s.height, s.width, s.channels()}, lepe.weight.dim(2),
                                    Conv2dGeometry::Centred(lepe.weight.dim(2)))),
        dtype_(qkv.dtype()),
        device_(qkv.device()),
        of_values_(!lepe.x.defined()),
        x_(of_values_ ? Values(s, qkv) : lepe.x.raw()),
        x_stride_(of_values_ ? 3 * s.channels() : s.channels()),
        weight_(lepe.weight.data<float>()) {
    CHECK(lepe.weight.dim(0) == s.channels() && lepe.bias.numel() == s.channels() &&
          (of_values_ ||
           (lepe.x.numel() == s.tokens() * s.channels() && lepe.x.dtype() == qkv.dtype())))
        << "bilevel_routing: lepe of " << Describe(of_values_ ? qkv : lepe.x) << " with weight "
        << Describe(lepe.weight) << ", bias " << Describe(lepe.bias);
  }

  void AddTo(const Tensor& out, const Tensor& bias) const {
    depthwise_conv(device_, DepthwiseConvArgs{.shape = shape_,
                                              .dtype = dtype_,
                                              .x = x_,
                                              .x_stride = x_stride_,
                                              .weight = weight_,
                                              .bias = bias.data<float>(),
                                              .y = out.raw(),
                                              .y_stride = shape_.channels,
                                              .residual = false,
                                              .accumulate = true});
  }

  // The gradient of the input: added to that of v, or the whole gradient of its own.
  void GradInput(const GradContext& g, const Tensor& d_out, char* d_values) const {
    GradDest dx;
    if (!of_values_) {
      if (!g.wants(kX)) return;
      dx = g.Dest(kX);
    }
    depthwise_conv_grad_input(
        device_, DepthwiseConvGradInputArgs{.shape = shape_,
                                            .dtype = dtype_,
                                            .dy = d_out.raw(),
                                            .dy_stride = shape_.channels,
                                            .weight = weight_,
                                            .dx = of_values_ ? d_values : dx.tensor.raw(),
                                            .dx_stride = x_stride_,
                                            .residual = false,
                                            .accumulate = of_values_ || dx.accumulate});
  }

  void GradParameters(const GradContext& g, const Tensor& d_out) const {
    if (!g.wants(kWeight) && !g.wants(kBias)) return;
    const GradDest dweight = g.wants(kWeight) ? g.Dest(kWeight) : GradDest();
    const GradDest dbias = g.wants(kBias) ? g.Dest(kBias) : GradDest();
    const auto floats = [](const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; };
    depthwise_conv_grad_weight(device_,
                               DepthwiseConvGradWeightArgs{.shape = shape_,
                                                           .dtype = dtype_,
                                                           .dy = d_out.raw(),
                                                           .dy_stride = shape_.channels,
                                                           .x = x_,
                                                           .x_stride = x_stride_,
                                                           .dweight = floats(dweight.tensor),
                                                           .dbias = floats(dbias.tensor),
                                                           .accumulate_dweight = dweight.accumulate,
                                                           .accumulate_dbias = dbias.accumulate});
  }

 private:
  DepthwiseConvShape shape_;
  DType dtype_;
  Device device_;
  bool of_values_;
  const void* x_;
  int64_t x_stride_;
  const float* weight_;
};

void Backward(const RoutedAttentionShape& shape, const Tensor& qkv, const Tensor& routes,
              const Lepe& lepe, const GradContext& g) {
  const Tensor d_out = g.out();
  const Tensor d_qkv = Tensor::Empty(qkv.shape(), qkv.dtype(), qkv.device());
  bilevel_routing_backward(qkv.device(), RoutedAttentionGradArgs{.dtype = qkv.dtype(),
                                                                 .shape = shape,
                                                                 .qkv = qkv.raw(),
                                                                 .routes = routes.data<int32_t>(),
                                                                 .d_out = d_out.raw(),
                                                                 .d_qkv = d_qkv.raw()});
  const LepeConvolution convolution(shape, qkv, lepe);
  convolution.GradInput(g, d_out, Values(shape, d_qkv));
  convolution.GradParameters(g, d_out);
  g.Add(kQkv, d_qkv);
}

}  // namespace

Tensor RouteRegions(const Tensor& qkv, const Routing& routing) {
  const RoutedAttentionShape shape = CheckedShape(qkv, routing);
  const Tensor routes = Tensor::Empty(RoutesShape(shape), DType::kI32, qkv.device());
  if (routes.numel() == 0 || qkv.numel() == 0) return routes;
  bilevel_routing_route(qkv.device(), RouteArgs{.dtype = qkv.dtype(),
                                                .shape = shape,
                                                .qkv = qkv.raw(),
                                                .routes = routes.data<int32_t>()});
  return routes;
}

Tensor RoutedAttention(const Tensor& qkv, const Tensor& routes, const Lepe& lepe,
                       const Routing& routing) {
  const RoutedAttentionShape shape = CheckedShape(qkv, routing);
  CHECK(routes.dtype() == DType::kI32 && routes.shape() == RoutesShape(shape))
      << "bilevel_routing: routes " << Describe(routes) << " of " << shape.regions()
      << " regions, topk " << shape.topk;
  Tensor out = Tensor::Empty({shape.batch, shape.height, shape.width, shape.channels()},
                             qkv.dtype(), qkv.device());
  if (out.numel() == 0) return out;
  bilevel_routing_forward(qkv.device(), RoutedAttentionArgs{.dtype = qkv.dtype(),
                                                            .shape = shape,
                                                            .qkv = qkv.raw(),
                                                            .routes = routes.data<int32_t>(),
                                                            .out = out.raw()});
  LepeConvolution(shape, qkv, lepe).AddTo(out, lepe.bias);
  Record("routed_attention", {&qkv, &lepe.x, &lepe.weight, &lepe.bias}, {&out},
         [shape, qkv = qkv.Detach(), routes,
          lepe = Lepe{lepe.x.Detach(), lepe.weight.Detach(), lepe.bias.Detach()}](GradContext& g) {
           Backward(shape, qkv, routes, lepe, g);
         });
  return out;
}

namespace attention {
namespace {

constexpr int64_t kLepeKernel = 5;

int64_t RoundUp(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

Lepe NoLepe(int64_t dim) {
  return {Tensor(), Tensor::Zeros({dim, 1, kLepeKernel, kLepeKernel}, DType::kF32),
          Tensor::Zeros({dim}, DType::kF32)};
}

float InverseRoot(int64_t n) { return 1.0f / std::sqrt(static_cast<float>(n)); }

// A convolution 1x1 starts as convolutions do, uniform within 1 / sqrt(dim).
layers::Linear::Options Projection(int64_t dim, bool pointwise, bool bias) {
  if (!pointwise) return {.bias = bias};
  const Init init = Init::Uniform(InverseRoot(dim));
  return {.bias = bias, .pointwise = true, .weight_init = init, .bias_init = init};
}

// The qkv projection as the official code nests it.
class NestedProjection : public Module {
 public:
  explicit NestedProjection(int64_t dim) : qkv(AddChild<layers::Linear>("qkv", dim, 3 * dim)) {}
  const layers::Linear& qkv;
};

}  // namespace

BilevelRoutingAttention::BilevelRoutingAttention(const Options& options)
    : options_(options),
      lepe_(AddChild<layers::DepthwiseConv>("lepe", options.dim, kLepeKernel)),
      qkv_(options.pointwise ? AddChild<layers::Linear>("qkv_linear", options.dim, 3 * options.dim,
                                                        Projection(options.dim, true, true))
                             : AddChild<NestedProjection>("qkv", options.dim).qkv),
      out_(options.pointwise ? AddChild<layers::Linear>("output_linear", options.dim, options.dim,
                                                        Projection(options.dim, true, true))
                             : AddChild<layers::Linear>("wo", options.dim, options.dim)),
      router_(AddChild<Router>("router")) {}

std::pair<Tensor, Routing> BilevelRoutingAttention::Regions(const Tensor& x) const {
  const int64_t height = x.dim(1), width = x.dim(2), n = options_.n_win;
  Routing routing = {.num_heads = options_.num_heads, .scale = InverseRoot(options_.dim)};
  Tensor map = x;
  if (options_.pointwise) {
    routing.region_height = std::max<int64_t>(1, height / n);
    routing.region_width = std::max<int64_t>(1, width / n);
  } else {
    map = FitMap(x, RoundUp(height, n), RoundUp(width, n));
    routing.region_height = map.dim(1) / n;
    routing.region_width = map.dim(2) / n;
  }
  const int64_t regions = ((map.dim(1) + routing.region_height - 1) / routing.region_height) *
                          ((map.dim(2) + routing.region_width - 1) / routing.region_width);
  routing.topk = std::min(options_.topk, regions);
  return {map, routing};
}

Tensor BilevelRoutingAttention::Forward(const Tensor& x, const ForwardContext& context,
                                        DType out_dtype) const {
  const auto [map, routing] = Regions(x);
  const Tensor qkv = qkv_.Forward(map, map.dtype());
  const Tensor routes = RouteRegions(qkv, routing);
  context.Tap(router_, routes);
  const Tensor out =
      RoutedAttention(qkv, routes, {Tensor(), lepe_.weight(), lepe_.bias()}, routing);
  return FitMap(out_.Forward(out, out_dtype), x.dim(1), x.dim(2));
}

Tensor BilevelRoutingAttention::AttentionMap(const Tensor& x) const {
  const auto [map, routing] = Regions(x);
  const Tensor qkv = qkv_.Forward(map, DType::kF32), routes = RouteRegions(qkv, routing);
  // Padding asks as well, but its results are cut off.
  const Tensor received = AttentionReceived(qkv, 3, options_.dim, [&, routing](const Tensor& in) {
    return FitMap(RoutedAttention(in, routes, NoLepe(options_.dim), routing), x.dim(1), x.dim(2));
  });
  const Tensor kept =
      FitMap(received.Reshape({x.dim(0), map.dim(1), map.dim(2), 1}), x.dim(1), x.dim(2));
  return NormalizeAttentionMap(kept.Reshape({x.dim(0), x.dim(1), x.dim(2)}));
}

GlobalAttention::GlobalAttention(const Options& options)
    : options_(options),
      qkv_(AddChild<layers::Linear>("qkv", options.dim, 3 * options.dim,
                                    Projection(options.dim, options.pointwise, /*bias=*/false))),
      proj_(AddChild<layers::Linear>("proj", options.dim, options.dim,
                                     Projection(options.dim, options.pointwise, /*bias=*/true))),
      lepe_(AddChild<layers::DepthwiseConv>("lepe", options.dim, kLepeKernel)) {}

Tensor GlobalAttention::Attend(const Tensor& qkv, const Lepe& lepe) const {
  const Routing routing = {.num_heads = options_.num_heads,
                           .region_height = qkv.dim(1),
                           .region_width = qkv.dim(2),
                           .topk = 1,
                           .scale = InverseRoot(options_.dim / options_.num_heads)};
  return RoutedAttention(qkv, Tensor::Zeros({qkv.dim(0), 1, 1}, DType::kI32, qkv.device()), lepe,
                         routing);
}

Tensor GlobalAttention::Forward(const Tensor& x, DType out_dtype) const {
  const Lepe lepe = {options_.pointwise ? Tensor() : x, lepe_.weight(), lepe_.bias()};
  return proj_.Forward(Attend(qkv_.Forward(x, x.dtype()), lepe), out_dtype);
}

Tensor GlobalAttention::AttentionMap(const Tensor& x) const {
  const Tensor qkv = qkv_.Forward(x, DType::kF32);
  return NormalizeAttentionMap(AttentionReceived(
      qkv, 3, options_.dim, [this](const Tensor& in) { return Attend(in, NoLepe(options_.dim)); }));
}

}  // namespace attention
}  // namespace tessera
