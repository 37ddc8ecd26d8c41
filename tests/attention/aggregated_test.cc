#include "attention/aggregated/aggregated.h"

#include <set>

#include "attention/aggregated/aggregated_ref.h"
#include "tests/gradcheck.h"

namespace tessera {
namespace {

using attention::AggregatedAttentionConfig;

std::set<std::string> Names(Module& module, bool decaying_only) {
  std::set<std::string> names;
  module.VisitParameters([&](const std::string& name, Parameter& parameter) {
    if (parameter.decays() || !decaying_only) names.insert(name);
  });
  return names;
}

TEST(AggregatedAttentionModule, NamesItsParametersAsCheckpointsDo) {
  attention::AggregatedAttention pooled({.dim = 6, .num_heads = 2, .sr_ratio = 2});
  EXPECT_EQ(Names(pooled, false),
            (std::set<std::string>{"temperature", "query_embedding", "relative_pos_bias_local",
                                   "learnable_tokens", "learnable_bias", "q.weight", "q.bias",
                                   "kv.weight", "kv.bias", "sr.weight", "sr.bias", "norm.weight",
                                   "norm.bias", "cpb_fc1.weight", "cpb_fc1.bias", "cpb_fc2.weight",
                                   "cpb_fc2.bias", "proj.weight", "proj.bias"}));
  EXPECT_EQ(Names(pooled, true),
            (std::set<std::string>{"learnable_tokens", "learnable_bias", "q.weight", "kv.weight",
                                   "sr.weight", "proj.weight"}));
  attention::AggregatedAttention full({.dim = 6, .num_heads = 2, .sr_ratio = 1});
  EXPECT_EQ(Names(full, false),
            (std::set<std::string>{"temperature", "query_embedding", "qkv.weight", "qkv.bias",
                                   "cpb_fc1.weight", "cpb_fc1.bias", "cpb_fc2.weight",
                                   "cpb_fc2.bias", "proj.weight", "proj.bias"}));
  EXPECT_EQ(Names(full, true), (std::set<std::string>{"qkv.weight", "proj.weight"}));
}

TEST(AggregatedAttentionModule, PoolsToTheRatioOrToAFixedGrid) {
  const attention::AggregatedAttention ratio({.dim = 4, .sr_ratio = 4});
  EXPECT_EQ(ratio.PooledGrid({15, 8}), (GridSize{3, 2}));
  EXPECT_EQ(ratio.PooledGrid({3, 9}), (GridSize{1, 2}));
  const attention::AggregatedAttention fixed({.dim = 4, .sr_ratio = 4, .fixed_pool_size = 5});
  EXPECT_EQ(fixed.PooledGrid({16, 60}), (GridSize{5, 5}));
  const attention::AggregatedAttention full({.dim = 4, .sr_ratio = 1});
  EXPECT_EQ(full.PooledGrid({3, 9}), (GridSize{3, 9}));
}

// The coordinate of position y and cell j is a function of their distance alone.
TEST(RelativeAxis, IndexesEveryDistance) {
  const PooledAxis axes[] = {{56, 7}, {10, 4}, {9, 2}, {5, 5}, {3, 1}, {1, 1}, {7, 3}};
  for (const PooledAxis& axis : axes) {
    const RelativeAxis relative = MakeRelativeAxis(axis, 14);
    for (int64_t j = 0; j < axis.cells; ++j) {
      double centre = 0;
      for (int64_t i = axis.Begin(j); i < axis.End(j); ++i) centre += static_cast<double>(i);
      centre /= static_cast<double>(axis.End(j) - axis.Begin(j));
      for (int64_t y = 0; y < axis.size; ++y) {
        const double r = (static_cast<double>(y) - centre) / 13.0 * 8.0;
        const double expected = std::copysign(std::log2(std::abs(r) + 1) / std::log2(8.0), r);
        const auto at = static_cast<size_t>(relative.first[j] + y);
        ASSERT_LT(at, relative.coordinates.size());
        EXPECT_NEAR(relative.coordinates[at], expected, 1e-6)
            << axis.size << " to " << axis.cells << ": position " << y << ", cell " << j;
      }
    }
  }
  // No distance is there twice where cells fit: 56 positions and six steps of eight.
  EXPECT_EQ(MakeRelativeAxis({56, 7}, 56).coordinates.size(), 104u);
}

// Weights of a network of 19 hidden units for 3 heads.
std::vector<Tensor> CpbWeights() {
  return {RandomTensor({19, 2}, DType::kF32, 1, -2, 2), RandomTensor({19}, DType::kF32, 2),
          RandomTensor({3, 19}, DType::kF32, 3), RandomTensor({3}, DType::kF32, 4)};
}

Tensor Ramp(int64_t n) {
  const Tensor t = Tensor::Empty({n}, DType::kF32);
  for (int64_t i = 0; i < n; ++i) Set(t, i, 0.37 * static_cast<double>(i) - 1.3);
  return t;
}

class LogCpbTest : public OnEveryTarget {};

TEST_P(LogCpbTest, MatchesDoublePrecision) {
  const std::vector<Tensor> w = CpbWeights();
  for (const int64_t n : {1, 5, 33}) {
    const Tensor y = Ramp(4), x = Ramp(n);
    std::vector<double> expected;
    for (int64_t head = 0; head < 3; ++head) {
      for (int64_t i = 0; i < 4; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          double sum = At(w[3], head);
          for (int64_t u = 0; u < 19; ++u) {
            const double hidden =
                At(w[0], 2 * u) * At(y, i) + At(w[0], 2 * u + 1) * At(x, j) + At(w[1], u);
            sum += At(w[2], head * 19 + u) * std::max(0.0, hidden);
          }
          expected.push_back(sum);
        }
      }
    }
    ExpectClose(LogCpb(y, x, {w[0], w[1], w[2], w[3]}), expected, 2e-6);
  }
}

// By the chain rule, as ReLU has corners that finite differences step over.
TEST_P(LogCpbTest, GradientsMatchDoublePrecision) {
  const std::vector<Tensor> w = CpbWeights();
  const Tensor y = Ramp(5), x = Ramp(33);
  const std::vector<Tensor> gradients = TapeGradients(
      [&](const std::vector<Tensor>& in) {
        return LogCpb(y, x, {in[0], in[1], in[2], in[3]});
      },
      w);
  const Tensor d_out = DotCoefficients(Tensor::Empty({3, 5, 33}, DType::kF32));
  std::vector<double> fc1(2 * 19), fc1_bias(19), fc2(3 * 19), fc2_bias(3);
  for (int64_t entry = 0; entry < 5 * 33; ++entry) {
    const double at_y = At(y, entry / 33), at_x = At(x, entry % 33);
    for (int64_t u = 0; u < 19; ++u) {
      const double hidden = At(w[0], 2 * u) * at_y + At(w[0], 2 * u + 1) * at_x + At(w[1], u);
      if (hidden <= 0) continue;
      double d = 0;
      for (int64_t head = 0; head < 3; ++head) {
        fc2[head * 19 + u] += At(d_out, head * 165 + entry) * hidden;
        d += At(d_out, head * 165 + entry) * At(w[2], head * 19 + u);
      }
      fc1[2 * u] += d * at_y;
      fc1[2 * u + 1] += d * at_x;
      fc1_bias[u] += d;
    }
    for (int64_t head = 0; head < 3; ++head) fc2_bias[head] += At(d_out, head * 165 + entry);
  }
  const std::vector<double>* const expected[] = {&fc1, &fc1_bias, &fc2, &fc2_bias};
  for (int k = 0; k < 4; ++k) ExpectClose(gradients[k], *expected[k], 1e-5);
}

TEST_P(LogCpbTest, HasTheSameBitsForAnyNumberOfThreads) {
  ExpectSameBitsForAnyThreads([] {
    const TensorFn fn = [](const std::vector<Tensor>& w) {
      return LogCpb(Ramp(40), Ramp(37), {w[0], w[1], w[2], w[3]});
    };
    std::vector<Tensor> all = TapeGradients(fn, CpbWeights());
    all.push_back(fn(CpbWeights()));
    return all;
  });
}

INSTANTIATE_ON_EVERY_TARGET(LogCpbTest);

// Biases [head][position][key] from the layout.
double BiasAt(const PositionBias& bias, int64_t head, int64_t y, int64_t x, int64_t key) {
  const int64_t per_head = bias.values.numel() / bias.values.dim(0);
  return At(bias.values,
            head * per_head + bias.key_offsets.data<int64_t>()[key] + y * bias.row_stride + x);
}

// Weights with which bilinear interpolation without aligned corners makes pixel i of `to` pixels.
std::vector<double> Bilinear(int64_t i, int64_t from, int64_t to) {
  const double at = std::max(
      0.0,
      (static_cast<double>(i) + 0.5) * static_cast<double>(from) / static_cast<double>(to) - 0.5);
  std::vector<double> weights(from);
  const auto low = static_cast<int64_t>(at);
  weights[low] += 1 - (at - static_cast<double>(low));
  weights[std::min(low + 1, from - 1)] += at - static_cast<double>(low);
  return weights;
}

TEST(PositionBias, IsResizedOverKeysAndQueries) {
  const std::vector<Tensor> w = CpbWeights();
  const LogCpbWeights weights = {w[0], w[1], w[2], w[3]};
  const GridSize from_map = {6, 4}, from_pooled = {3, 2}, map = {9, 5}, pooled = {4, 3};
  const PositionBias from = MakePositionBias(
      MakePositionBiasTables(from_map, from_pooled, {8, 8}, Device::kCpu), weights);
  const PositionBias to = MakePositionBias(
      MakeResizedPositionBiasTables(from_map, from_pooled, map, pooled, {8, 8}, Device::kCpu),
      weights);
  for (int64_t y = 0; y < map.height; ++y)
    for (int64_t x = 0; x < map.width; ++x)
      for (int64_t i = 0; i < pooled.height; ++i)
        for (int64_t j = 0; j < pooled.width; ++j) {
          const auto wy = Bilinear(y, 6, 9), wx = Bilinear(x, 4, 5);
          const auto wi = Bilinear(i, 3, 4), wj = Bilinear(j, 2, 3);
          double expected = 0;
          for (int64_t a = 0; a < 6; ++a)
            for (int64_t b = 0; b < 4; ++b)
              for (int64_t c = 0; c < 3; ++c)
                for (int64_t d = 0; d < 2; ++d)
                  expected += wy[a] * wx[b] * wi[c] * wj[d] * BiasAt(from, 1, a, b, c * 2 + d);
          EXPECT_NEAR(BiasAt(to, 1, y, x, i * pooled.width + j), expected, 1e-5)
              << y << ", " << x << ", cell " << i << ", " << j;
        }
}

// The resizing is linear in what fc2 gives, so that its weights have no corners.
TEST(PositionBias, GradientsOfResizedBiasesMatchFiniteDifferences) {
  const std::vector<Tensor> w = CpbWeights();
  const PositionBiasTables tables =
      MakeResizedPositionBiasTables({4, 4}, {2, 2}, {6, 5}, {3, 2}, {8, 8}, Device::kCpu);
  EXPECT_TRUE(GradientsMatch(
      [&](const std::vector<Tensor>& fc2) {
        return MakePositionBias(tables, {w[0], w[1], fc2[0], fc2[1]}).values;
      },
      {w[2], w[3]}));
}

// Inputs of attention with windows of any size on maps of 7 x 20 with 2 x 5 pooled cells.
struct Wide {
  static constexpr int64_t kHeads = 2, kDim = 6, kKeys = 10;

  explicit Wide(int64_t window)
      : shape{.batch = 1,
              .height = 7,
              .width = 20,
              .num_heads = kHeads,
              .head_dim = kDim,
              .window = window,
              .num_pooled = kKeys},
        inputs{RandomTensor({1, 7, 20, 12}, DType::kF32, 1),
               RandomTensor({1, 7, 20, 24}, DType::kF32, 2),
               RandomTensor({1, kKeys, 24}, DType::kF32, 3),
               RandomTensor({kHeads, 1, 1}, DType::kF32, 4),
               RandomTensor({kHeads, 1, kDim}, DType::kF32, 5),
               RandomTensor({kHeads, shape.slots()}, DType::kF32, 6),
               RandomTensor({kHeads, kDim, shape.slots()}, DType::kF32, 7),
               RandomTensor({kHeads, 1, shape.slots()}, DType::kF32, 8),
               RandomTensor({kHeads, 10, 140}, DType::kF32, 9)} {
    for (int64_t j = 0; j < kKeys; ++j) offsets.push_back(j * 140);
  }

  // Biases of every pair by themselves.
  Tensor Attend(const std::vector<Tensor>& in) const {
    return AggregatedAttention(in[0], in[1], in[2], {in[3], in[4]}, {in[5], in[6], in[7]},
                               {in[8], Tensor::From<int64_t>({kKeys}, offsets), 20}, kHeads,
                               shape.window);
  }
  std::vector<double> Reference() const {
    std::vector<std::vector<double>> in;
    for (const Tensor& input : inputs) in.push_back(ToDouble(input));
    std::vector<double> out(7 * 20 * 12);
    const PositionBiasArgs bias = {
        .key_offsets = offsets.data(), .row_stride = 20, .head_stride = 1400};
    AggregatedAttentionRef<double>(shape, bias,
                                   {.q = in[0].data(),
                                    .k = in[1].data(),
                                    .v = in[1].data() + 12,
                                    .q_stride = 12,
                                    .kv_stride = 24,
                                    .pooled_k = in[2].data(),
                                    .pooled_v = in[2].data() + 12,
                                    .pooled_stride = 24,
                                    .temperature = in[3].data(),
                                    .query_embedding = in[4].data(),
                                    .position_bias = in[8].data(),
                                    .local_bias = in[5].data(),
                                    .tokens = in[6].data(),
                                    .token_bias = in[7].data()},
                                   out.data());
    return out;
  }

  AggregatedAttentionShape shape;
  std::vector<Tensor> inputs;
  std::vector<int64_t> offsets;
};

class AggregatedWindows : public OnEveryTarget {};

TEST_P(AggregatedWindows, OfAnyOddSizeMatchDoublePrecision) {
  for (const int64_t window : {1, 3, 5, 9}) {
    const Wide wide(window);
    ExpectClose(wide.Attend(wide.inputs), wide.Reference(), 5e-6);
  }
}

TEST_P(AggregatedWindows, HaveGradientsOfFiniteDifferences) {
  for (const int64_t window : {1, 5}) {
    const Wide wide(window);
    EXPECT_TRUE(GradientsMatch([&](const std::vector<Tensor>& in) { return wide.Attend(in); },
                               wide.inputs, {.tolerance = 6e-3, .max_elements = 24}))
        << "window " << window;
  }
}

// A key, query or pooled key without direction takes no part in products, and its neighbours and
// all gradients stay finite.
TEST_P(AggregatedWindows, ZeroVectorsAreHarmless) {
  Wide wide(3);
  for (int k = 0; k < 3; ++k) {
    for (int64_t i = 0; i < wide.inputs[k].numel() / 2; ++i) Set(wide.inputs[k], i, 0);
  }
  ExpectClose(wide.Attend(wide.inputs), wide.Reference(), 5e-6);
  for (const Tensor& gradient :
       TapeGradients([&](const std::vector<Tensor>& in) { return wide.Attend(in); }, wide.inputs)) {
    for (int64_t i = 0; i < gradient.numel(); ++i) ASSERT_TRUE(std::isfinite(At(gradient, i)));
  }
}

TEST_P(AggregatedWindows, NanStaysWhereItIsSeen) {
  Wide wide(3);
  Set(wide.inputs[0], 0, NAN);  // the query of position 0, head 0
  const Tensor out = wide.Attend(wide.inputs);
  for (int64_t i = 0; i < out.numel(); ++i) EXPECT_EQ(std::isnan(At(out, i)), i < 6) << i;
}

INSTANTIATE_ON_EVERY_TARGET(AggregatedWindows);

TEST(AggregatedAttentionDeathTest, WrongShapesAreNamed) {
  const Wide wide(3);
  std::vector<Tensor> in = wide.inputs;
  in[2] = Tensor::Zeros({1, 9, 24}, DType::kF32);
  EXPECT_DEATH(wide.Attend(in), "pooled_kv f32\\[1, 9, 24\\] for 10 pooled keys");
  in = wide.inputs;
  in[0] = Tensor::Zeros({1, 7, 20, 11}, DType::kF32);
  EXPECT_DEATH(wide.Attend(in), "q f32\\[1, 7, 20, 11\\].*2 heads");
}

}  // namespace
}  // namespace tessera
