// Puts bi-level routing attention, with regions of a seventh of the map's sides and four of them
// for each, under the conformance tests; and attention among all tokens, which is one region.
#include <algorithm>
#include <cmath>
#include <memory>

#include "attention/bilevel_routing/bilevel_routing.h"
#include "attention/bilevel_routing/bilevel_routing_ref.h"
#include "attention/registry.h"

namespace tessera {
namespace {

constexpr int64_t kKernel = 5;  // of LePE

constexpr int64_t kKeys = 64;

RoutedAttentionShape ShapeOf(const AttentionSize& size, int64_t windows) {
  const int64_t channels = size.num_heads * size.head_dim;
  const auto side = [&](int64_t n) { return std::max<int64_t>(1, n / windows); };
  RoutedAttentionShape shape = {.batch = size.batch,
                                .height = size.height,
                                .width = size.width,
                                .num_heads = size.num_heads,
                                .head_dim = size.head_dim,
                                .region_height = side(size.height),
                                .region_width = side(size.width),
                                .scale = 1.0f / std::sqrt(static_cast<float>(channels))};
  shape.topk =
      std::clamp<int64_t>(kKeys / shape.region_tokens(), 1, std::max<int64_t>(1, shape.regions()));
  return shape;
}

AttentionProblem Problem(const RoutedAttentionShape& shape, bool lepe_of_values) {
  const int64_t channels = shape.channels();
  const Shape map = {shape.batch, shape.height, shape.width, channels};
  const Routing routing = {shape.num_heads, shape.region_height, shape.region_width, shape.topk,
                           shape.scale};
  // The gradient does not see the choice of regions: the reference chooses once, for the inputs
  // that it is given first, and keeps that choice when they are moved.
  const auto routes = std::make_shared<std::vector<int32_t>>();
  AttentionProblem problem = {
      .inputs = {{"qkv", {shape.batch, shape.height, shape.width, 3 * channels}, false, 2.0},
                 {"lepe.weight", {channels, 1, kKernel, kKernel}, /*parameter=*/true, 0.2},
                 {"lepe.bias", {channels}, /*parameter=*/true}},
      .multiply_adds =
          2 * shape.pairs() + static_cast<double>(shape.tokens() * channels * kKernel * kKernel),
      .forward =
          [routing, lepe_of_values](const std::vector<Tensor>& in) {
            const Tensor x = lepe_of_values ? Tensor() : in[3];
            return RoutedAttention(in[0], RouteRegions(in[0], routing), {x, in[1], in[2]}, routing);
          },
      .reference =
          [shape, lepe_of_values, routes](const std::vector<const double*>& in, double* out) {
            if (routes->empty()) *routes = RouteRegionsRef(shape, in[0]);
            RoutedAttentionRef(shape, in[0], routes->data(), out);
            const int64_t channels = shape.channels();
            const double* x = lepe_of_values ? in[0] + 2 * channels : in[3];
            AddDepthwiseRef(shape, kKernel, x, lepe_of_values ? 3 * channels : channels, in[1],
                            in[2], out);
          }};
  if (!lepe_of_values) problem.inputs.push_back({"lepe.x", map});
  return problem;
}

AttentionProblem BilevelRoutingProblem(const AttentionSize& size) {
  return Problem(ShapeOf(size, /*windows=*/7), /*lepe_of_values=*/true);
}

AttentionProblem GlobalProblem(const AttentionSize& size) {
  return Problem(ShapeOf(size, /*windows=*/1), /*lepe_of_values=*/false);
}

REGISTER_ATTENTION(bilevel_routing, BilevelRoutingProblem);
REGISTER_ATTENTION(global, GlobalProblem);

}  // namespace
}  // namespace tessera
