#include "attention/bilevel_routing/bilevel_routing.h"

#include <array>
#include <map>

#include "attention/bilevel_routing/bilevel_routing_ref.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

RoutedAttentionShape ShapeOf(const Tensor& qkv, const Routing& r) {
  return {.batch = qkv.dim(0),
          .height = qkv.dim(1),
          .width = qkv.dim(2),
          .num_heads = r.num_heads,
          .head_dim = qkv.dim(3) / 3 / r.num_heads,
          .region_height = r.region_height,
          .region_width = r.region_width,
          .topk = r.topk,
          .scale = r.scale};
}

class BilevelRouting : public OnEveryTarget {};

TEST_P(BilevelRouting, RoutesAreThoseOfDoublePrecision) {
  for (const auto& [height, width, channels] :
       std::vector<std::array<int64_t, 3>>{{14, 14, 8}, {13, 17, 24}, {6, 40, 3}, {1, 9, 1}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor qkv = RandomTensor({2, height, width, 3 * channels}, dtype, 7);
      Routing routing = {.num_heads = 1, .region_height = 2, .region_width = 3};
      routing.region_height = std::min(height, routing.region_height);
      routing.topk = std::min<int64_t>(5, ShapeOf(qkv, routing).regions());
      const Tensor routes = RouteRegions(qkv, routing);
      const std::vector<int32_t> expected =
          RouteRegionsRef(ShapeOf(qkv, routing), ToDouble(qkv).data());
      for (int64_t i = 0; i < routes.numel(); ++i) {
        ASSERT_EQ(routes.data<int32_t>()[i], expected[i]) << "route " << i;
      }
    }
  }
}

TEST_P(BilevelRouting, EqualScoresGoToTheLowerIndex) {
  const Tensor qkv = Tensor::Zeros({1, 4, 6, 12}, DType::kF32);
  const Routing routing = {.region_height = 2, .region_width = 2, .topk = 4};
  const Tensor routes = RouteRegions(qkv, routing);
  for (int64_t i = 0; i < routes.numel(); ++i) {
    EXPECT_EQ(routes.data<int32_t>()[i], i % 4) << "route " << i;
  }
}

// Every region attends to the next one: where that one holds a value, the result is that value.
TEST_P(BilevelRouting, AttendsToTheListedRegionsOnly) {
  const Routing routing = {.num_heads = 2, .region_height = 2, .region_width = 2};
  const Tensor qkv = RandomTensor({1, 4, 4, 24}, DType::kF32, 1);
  const Tensor routes = Tensor::Empty({1, 4, 1}, DType::kI32);
  for (int i = 0; i < 4; ++i) routes.data<int32_t>()[i] = (i + 1) % 4;
  const auto region_of = [](int64_t token) { return token / 8 * 2 + token % 4 / 2; };
  for (int64_t i = 0; i < qkv.numel(); ++i) {
    if (i % 24 >= 16) Set(qkv, i, static_cast<double>(region_of(i / 24)));
  }
  const Lepe none = {Tensor(), Tensor::Zeros({8, 1, 5, 5}, DType::kF32),
                     Tensor::Zeros({8}, DType::kF32)};
  const Tensor out = RoutedAttention(qkv, routes, none, routing);
  for (int64_t i = 0; i < out.numel(); ++i) {
    EXPECT_NEAR(At(out, i), static_cast<double>((region_of(i / 8) + 1) % 4), 1e-6) << i;
  }
}

TEST_P(BilevelRouting, HasTheSameBitsForAnyNumberOfThreads) {
  const Tensor qkv = RandomTensor({2, 14, 13, 48}, DType::kF32, 1);
  const Routing routing = {.num_heads = 2, .region_height = 2, .region_width = 2, .topk = 9};
  ExpectSameBitsForAnyThreads([&] { return std::vector<Tensor>{RouteRegions(qkv, routing)}; });
}

INSTANTIATE_ON_EVERY_TARGET(BilevelRouting);

TEST(BilevelRoutingModule, NamesItsParametersAsCheckpointsDo) {
  const auto names = [](Module& module) {
    std::vector<std::string> result;
    module.VisitParameters([&](const std::string& name, Parameter&) { result.push_back(name); });
    return result;
  };
  attention::BilevelRoutingAttention plain({.dim = 8, .num_heads = 2, .n_win = 2, .topk = 1});
  EXPECT_EQ(names(plain), (std::vector<std::string>{"lepe.weight", "lepe.bias", "qkv.qkv.weight",
                                                    "qkv.qkv.bias", "wo.weight", "wo.bias"}));
  attention::BilevelRoutingAttention pointwise(
      {.dim = 8, .num_heads = 2, .n_win = 2, .topk = 1, .pointwise = true});
  EXPECT_EQ(
      names(pointwise),
      (std::vector<std::string>{"lepe.weight", "lepe.bias", "qkv_linear.weight", "qkv_linear.bias",
                                "output_linear.weight", "output_linear.bias"}));
  attention::GlobalAttention global({.dim = 16});
  EXPECT_EQ(names(global), (std::vector<std::string>{"qkv.weight", "proj.weight", "proj.bias",
                                                     "lepe.weight", "lepe.bias"}));
}

TEST(BilevelRoutingModule, TapsItsRoutes) {
  attention::BilevelRoutingAttention module({.dim = 8, .num_heads = 2, .n_win = 3, .topk = 2});
  const ParameterStore store(module, 1, false);
  std::map<std::string, Shape> taps;
  ForwardContext context;
  context.tap = [&](absl::string_view name, const Tensor& t) {
    taps[std::string(name)] = t.shape();
  };
  const Tensor x = RandomTensor({2, 7, 5, 8}, DType::kF32, 1);
  EXPECT_EQ(module.Forward(x, context, DType::kF32).shape(), x.shape());
  EXPECT_EQ(taps, (std::map<std::string, Shape>{{"router", Shape({2, 9, 2})}}));
}

TEST(BilevelRoutingDeathTest, WrongShapesAreNamed) {
  const Tensor qkv = Tensor::Zeros({1, 2, 2, 10}, DType::kF32);
  EXPECT_DEATH(RouteRegions(qkv, {.num_heads = 2}), "qkv f32\\[1, 2, 2, 10\\], 2 heads");
  const Tensor good = Tensor::Zeros({1, 2, 2, 12}, DType::kF32);
  EXPECT_DEATH(RouteRegions(good, {.num_heads = 2, .topk = 5}), "5 of 4 regions");
}

}  // namespace
}  // namespace tessera
