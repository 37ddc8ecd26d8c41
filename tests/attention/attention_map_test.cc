#include "attention/attention_map.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>

#include "attention/aggregated/aggregated.h"
#include "attention/aggregated/aggregated_ref.h"
#include "attention/bilevel_routing/bilevel_routing.h"
#include "attention/bilevel_routing/bilevel_routing_ref.h"
#include "attention/channel/channel.h"
#include "attention/grid/grid.h"
#include "attention/grid/grid_ref.h"
#include "attention/window/window.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

double MeanOf(const Tensor& map) {
  double sum = 0;
  for (int64_t i = 0; i < map.numel(); ++i) sum += map.data<float>()[i];
  return sum / static_cast<double>(map.numel());
}

// Of one head in windows of 2 x 2.
Tensor MapOfWindows(const Tensor& qkv) {
  return NormalizeAttentionMap(AttentionReceived(qkv, 3, qkv.dim(3) / 3, [](const Tensor& in) {
    return WindowAttention(in, Tensor(), 1, 2);
  }));
}

// One head in one window of 2 x 2: the columns of its 4 x 4 softmax, summed by hand.
TEST(AttentionMap, OfWindowsIsTheWeightThatPositionsGet) {
  const int64_t d = 3;
  const Tensor qkv = RandomTensor({1, 2, 2, 3 * d}, DType::kF32, 1, -2, 2);
  const Tensor map = MapOfWindows(qkv);
  double expected[4] = {};
  for (int i = 0; i < 4; ++i) {
    double weights[4], sum = 0;
    for (int j = 0; j < 4; ++j) {
      double dot = 0;
      for (int64_t c = 0; c < d; ++c) {
        dot += qkv.data<float>()[i * 3 * d + c] * qkv.data<float>()[j * 3 * d + d + c];
      }
      sum += weights[j] = std::exp(dot / std::sqrt(3.0));
    }
    for (int j = 0; j < 4; ++j) expected[j] += weights[j] / sum;
  }
  for (int j = 0; j < 4; ++j) EXPECT_NEAR(map.data<float>()[j], expected[j], 1e-5) << j;
}

// A position whose key answers every query takes the weight of its window, and of no other.
TEST(AttentionMap, OfWindowsShowsTheKeyThatAllQueriesMatch) {
  const Tensor qkv = Tensor::Zeros({1, 4, 4, 12}, DType::kF32);
  for (int64_t i = 0; i < 16; ++i) qkv.data<float>()[i * 12] = 1.0f;
  qkv.data<float>()[5 * 12 + 4] = 100.0f;  // the key of row 1, column 1
  const Tensor map = MapOfWindows(qkv);
  EXPECT_NEAR(map.data<float>()[5], 4, 1e-4);
  EXPECT_NEAR(map.data<float>()[0], 0, 1e-4);
  EXPECT_NEAR(map.data<float>()[15], 1, 1e-4);
}

TEST(AttentionMap, OfChannelsIsLargeWhereTheLogitsComeFrom) {
  for (const auto version :
       {ChannelAttentionVersion::kKeysTimesValues, ChannelAttentionVersion::kQueriesTimesKeys}) {
    attention::ChannelAttention module(8, 2, /*qkv_bias=*/false, version);
    const ParameterStore store(module, 1, false);
    const Tensor x = RandomTensor({2, 3, 5, 8}, DType::kF32, 2, -0.1, 0.1);
    for (int64_t c = 0; c < 8; ++c) x.data<float>()[7 * 8 + c] *= 30;
    const Tensor map = module.AttentionMap(x);
    EXPECT_EQ(map.shape(), Shape({2, 3, 5}));
    EXPECT_NEAR(MeanOf(map), 1, 1e-5);
    EXPECT_GT(map.data<float>()[7], 10);
    EXPECT_LT(map.data<float>()[15 + 7], 10);
  }
}

// Uniform within [-1, 1), so that logits differ.
void Randomize(const ParameterStore& store) {
  const Tensor values = RandomTensor(store.values().shape(), DType::kF32, 5);
  std::copy_n(values.data<float>(), values.numel(), store.values().data<float>());
}

std::vector<double> ValuesOf(const ParameterStore& store, const std::string& name) {
  return ToDouble(store.Find(name)->value());
}

// x weight^T + bias, for rows of x.
std::vector<double> Project(const std::vector<double>& x, const ParameterStore& store,
                            const std::string& name) {
  const std::vector<double> weight = ValuesOf(store, name + ".weight");
  const int64_t outputs = store.Find(name + ".weight")->shape()[0];
  const int64_t inputs = static_cast<int64_t>(weight.size()) / outputs;
  std::vector<double> bias(outputs);
  if (store.Find(name + ".bias") != nullptr) bias = ValuesOf(store, name + ".bias");
  std::vector<double> y;
  for (size_t row = 0; row < x.size(); row += inputs) {
    for (int64_t o = 0; o < outputs; ++o) {
      y.push_back(std::inner_product(&x[row], &x[row] + inputs, &weight[o * inputs], bias[o]));
    }
  }
  return y;
}

double SumOf(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

// `in` with values of one in a row and zero in all others, where each `parts` * `width` channels
// end in `width` values.
std::vector<double> WithValuesIn(int64_t row, std::vector<double> in, int64_t channels,
                                 int64_t parts, int64_t width) {
  for (size_t i = 0; i < in.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    if (at % channels / width % parts == parts - 1) in[i] = at / channels == row ? 1 : 0;
  }
  return in;
}

// What reaches the outputs of a value of one in a pixel, for every pixel of the map's images,
// scaled to mean 1.
void ExpectMap(const Tensor& map, const std::function<double(int64_t pixel)>& reach) {
  std::vector<double> expected(map.numel());
  for (int64_t i = 0; i < map.numel(); ++i) expected[i] = reach(i);
  const int64_t pixels = map.dim(1) * map.dim(2);
  for (auto image = expected.begin(); image != expected.end(); image += pixels) {
    const double sum = std::accumulate(image, image + pixels, 0.0);
    const auto [least, most] = std::minmax_element(image, image + pixels);
    EXPECT_GT(*most, 1.1 * *least) << "a map without features shows nothing";
    for (auto x = image; x != image + pixels; ++x) *x *= static_cast<double>(pixels) / sum;
  }
  ExpectClose(map, expected, 1e-5);
}

TEST(AttentionMap, OfBlocksAndGridsIsThatOfTheReference) {
  constexpr int64_t kChannels = 8, kHeads = 2;
  for (const Partition partition : {Partition::kBlock, Partition::kGrid}) {
    for (const bool head_first : {false, true}) {
      attention::GridAttention module(kChannels, {.attention = {.partition = partition,
                                                                .num_heads = kHeads,
                                                                .rows = 2,
                                                                .columns = 3,
                                                                .head_first = head_first}});
      const ParameterStore store(module, 1, false);
      Randomize(store);
      const Tensor x = RandomTensor({2, 4, 6, kChannels}, DType::kF32, 2);
      const GridAttentionShape shape = {.batch = 2,
                                        .height = 4,
                                        .width = 6,
                                        .num_heads = kHeads,
                                        .head_dim = kChannels / kHeads,
                                        .rows = 2,
                                        .columns = 3,
                                        .partition = partition,
                                        .head_first = head_first};
      const std::vector<double> qkv = Project(ToDouble(x), store, "qkv");
      const std::vector<double> table = ValuesOf(store, "rel_pos.relative_position_bias_table");
      ExpectMap(module.AttentionMap(x), [&](int64_t pixel) {
        const std::vector<double> in =
            WithValuesIn(pixel, qkv, 3 * kChannels, 3, head_first ? shape.head_dim : kChannels);
        std::vector<double> out(x.numel());
        GridAttentionRef(shape, RelativeTable::kKeyMinusQuery, in.data(), table.data(), out.data());
        return SumOf(out);
      });
    }
  }
}

// What values of pixels inside of height x width reach there by the definition of routed attention.
double RoutedReach(const RoutedAttentionShape& s, const std::vector<double>& qkv,
                   const std::vector<int32_t>& routes, int64_t pixel, int64_t height,
                   int64_t width) {
  const int64_t channels = s.channels();
  const int64_t b = pixel / (height * width), y = pixel / width % height, x = pixel % width;
  const std::vector<double> in =
      WithValuesIn((b * s.height + y) * s.width + x, qkv, 3 * channels, 3, channels);
  std::vector<double> out(s.tokens() * channels);
  RoutedAttentionRef(s, in.data(), routes.data(), out.data());
  double sum = 0;
  for (int64_t i = 0; i < static_cast<int64_t>(out.size()); ++i) {
    const int64_t token = i / channels;
    if (token / s.width % s.height < height && token % s.width < width) sum += out[i];
  }
  return sum;
}

// Maps of 5 x 7 are padded to 6 x 8 for 2 x 2 regions, before the projection; with `pointwise` they
// have 3 x 3 regions of 2 x 3, padded behind it.
TEST(AttentionMap, OfRoutedRegionsIsThatOfTheReference) {
  constexpr int64_t kHeight = 5, kWidth = 7, kChannels = 8;
  for (const bool pointwise : {false, true}) {
    attention::BilevelRoutingAttention module(
        {.dim = kChannels, .num_heads = 2, .n_win = 2, .topk = 2, .pointwise = pointwise});
    const ParameterStore store(module, 1, false);
    Randomize(store);
    const Tensor x = RandomTensor({2, kHeight, kWidth, kChannels}, DType::kF32, 2, -3, 3);
    const RoutedAttentionShape shape = {.batch = 2,
                                        .height = pointwise ? kHeight : 6,
                                        .width = pointwise ? kWidth : 8,
                                        .num_heads = 2,
                                        .head_dim = kChannels / 2,
                                        .region_height = pointwise ? 2 : 3,
                                        .region_width = pointwise ? 3 : 4,
                                        .topk = 2,
                                        .scale = std::sqrt(1.0f / kChannels)};
    std::vector<double> padded(shape.tokens() * kChannels);
    for (int64_t i = 0; i < x.numel(); ++i) {
      const int64_t row = i / (kWidth * kChannels);  // of all images
      padded[(row / kHeight * shape.height + row % kHeight) * shape.width * kChannels +
             i % (kWidth * kChannels)] = At(x, i);
    }
    const std::vector<double> qkv = Project(padded, store, pointwise ? "qkv_linear" : "qkv.qkv");
    const std::vector<int32_t> routes = RouteRegionsRef(shape, qkv.data());
    ExpectMap(module.AttentionMap(x), [&](int64_t pixel) {
      return RoutedReach(shape, qkv, routes, pixel, kHeight, kWidth);
    });
  }
}

TEST(AttentionMap, OfAllTokensIsThatOfTheReference) {
  attention::GlobalAttention module({.dim = 16});
  const ParameterStore store(module, 1, false);
  Randomize(store);
  const Tensor x = RandomTensor({2, 3, 5, 16}, DType::kF32, 2);
  const RoutedAttentionShape shape = {.batch = 2,
                                      .height = 3,
                                      .width = 5,
                                      .num_heads = 8,
                                      .head_dim = 2,
                                      .region_height = 3,
                                      .region_width = 5,
                                      .topk = 1,
                                      .scale = std::sqrt(0.5f)};
  const std::vector<double> qkv = Project(ToDouble(x), store, "qkv");
  ExpectMap(module.AttentionMap(x), [&](int64_t pixel) {
    return RoutedReach(shape, qkv, {0, 0}, pixel, 3, 5);
  });
}

// Averages of GELU over the cells of a map [B, H, W, C], each normed over channels.
std::vector<double> PooledRef(const std::vector<double>& map, const ParameterStore& store,
                              int64_t channels, const PooledAxis& rows, const PooledAxis& columns) {
  const std::vector<double> weight = ValuesOf(store, "norm.weight");
  const std::vector<double> bias = ValuesOf(store, "norm.bias");
  const int64_t images = static_cast<int64_t>(map.size()) / (rows.size * columns.size * channels);
  std::vector<double> pooled;
  for (int64_t cell = 0; cell < images * rows.cells * columns.cells; ++cell) {
    const int64_t b = cell / (rows.cells * columns.cells);
    const int64_t i = cell / columns.cells % rows.cells, j = cell % columns.cells;
    std::vector<double> mean(channels);
    double count = 0;
    for (int64_t y = rows.Begin(i); y < rows.End(i); ++y) {
      for (int64_t x = columns.Begin(j); x < columns.End(j); ++x, ++count) {
        const double* pixel = &map[((b * rows.size + y) * columns.size + x) * channels];
        for (int64_t c = 0; c < channels; ++c) {
          mean[c] += 0.5 * pixel[c] * (1 + std::erf(pixel[c] / std::sqrt(2.0)));
        }
      }
    }
    for (double& value : mean) value /= count;
    const double centre = SumOf(mean) / static_cast<double>(channels);
    double variance = 0;
    for (const double value : mean) variance += (value - centre) * (value - centre);
    variance /= static_cast<double>(channels);
    for (int64_t c = 0; c < channels; ++c) {
      pooled.push_back((mean[c] - centre) / std::sqrt(variance + 1e-5) * weight[c] + bias[c]);
    }
  }
  return pooled;
}

AggregatedAttentionShape ShapeOf(const Tensor& x, int64_t num_heads, int64_t window,
                                 int64_t num_pooled) {
  return {.batch = x.dim(0),
          .height = x.dim(1),
          .width = x.dim(2),
          .num_heads = num_heads,
          .head_dim = x.dim(3) / num_heads,
          .window = window,
          .num_pooled = num_pooled};
}

// The parts of a bias that the reference takes apart.
struct BiasRef {
  explicit BiasRef(const PositionBias& bias)
      : values(ToDouble(bias.values)),
        args{.key_offsets = bias.key_offsets.data<int64_t>(),
             .row_stride = bias.row_stride,
             .head_stride = bias.values.numel() / bias.values.dim(0)} {}
  std::vector<double> values;
  PositionBiasArgs args;
};

// A map of 5 x 7 is pooled to 2 x 3 cells that share pixels.
TEST(AttentionMap, OfNeighboursAndPooledCellsIsThatOfTheReference) {
  constexpr int64_t kHeight = 5, kWidth = 7, kChannels = 8, kHeads = 2, kPooled = 6;
  attention::AggregatedAttention module(
      {.dim = kChannels, .num_heads = kHeads, .sr_ratio = 2, .window = 3, .reference = {7, 7}});
  const ParameterStore store(module, 1, false);
  Randomize(store);
  const Tensor x = RandomTensor({2, kHeight, kWidth, kChannels}, DType::kF32, 2);
  const AggregatedAttentionShape shape = ShapeOf(x, kHeads, 3, kPooled);
  const PooledAxis rows = {kHeight, 2}, columns = {kWidth, 3};
  const std::vector<double> q = Project(ToDouble(x), store, "q");
  const std::vector<double> kv = Project(ToDouble(x), store, "kv");
  const std::vector<double> pooled_kv = Project(
      PooledRef(Project(ToDouble(x), store, "sr"), store, kChannels, rows, columns), store, "kv");
  const PositionBias position_bias = module.Bias({kHeight, kWidth});
  const BiasRef bias(position_bias);
  const std::vector<double> temperature = ValuesOf(store, "temperature");
  const std::vector<double> query_embedding = ValuesOf(store, "query_embedding");
  const std::vector<double> local_bias = ValuesOf(store, "relative_pos_bias_local");
  const std::vector<double> no_tokens(kChannels * 9);
  // With values of one in a pixel, or in a cell, alone.
  const auto reach = [&](int64_t pixel, int64_t cell) {
    const std::vector<double> own = WithValuesIn(pixel, kv, 2 * kChannels, 2, kChannels);
    const std::vector<double> pooled = WithValuesIn(cell, pooled_kv, 2 * kChannels, 2, kChannels);
    std::vector<double> out(x.numel());
    AggregatedAttentionRef<double>(shape, bias.args,
                                   {.q = q.data(),
                                    .k = own.data(),
                                    .v = own.data() + kChannels,
                                    .q_stride = kChannels,
                                    .kv_stride = 2 * kChannels,
                                    .pooled_k = pooled.data(),
                                    .pooled_v = pooled.data() + kChannels,
                                    .pooled_stride = 2 * kChannels,
                                    .temperature = temperature.data(),
                                    .query_embedding = query_embedding.data(),
                                    .position_bias = bias.values.data(),
                                    .local_bias = local_bias.data(),
                                    .tokens = no_tokens.data(),
                                    .token_bias = no_tokens.data()},
                                   out.data());
    return SumOf(out);
  };
  ExpectMap(module.AttentionMap(x), [&](int64_t pixel) {
    const int64_t b = pixel / (kHeight * kWidth), row = pixel / kWidth % kHeight;
    const int64_t column = pixel % kWidth;
    double sum = reach(pixel, -1);
    for (int64_t i = 0; i < rows.cells; ++i) {
      for (int64_t j = 0; j < columns.cells; ++j) {
        if (row < rows.Begin(i) || row >= rows.End(i)) continue;
        if (column < columns.Begin(j) || column >= columns.End(j)) continue;
        const int64_t pixels = (rows.End(i) - rows.Begin(i)) * (columns.End(j) - columns.Begin(j));
        sum += reach(-1, (b * rows.cells + i) * columns.cells + j) / static_cast<double>(pixels);
      }
    }
    return sum;
  });
}

TEST(AttentionMap, OfAllPositionsWithLengthScalingIsThatOfTheReference) {
  constexpr int64_t kHeight = 3, kWidth = 5, kChannels = 8, kHeads = 2;
  attention::AggregatedAttention module(
      {.dim = kChannels, .num_heads = kHeads, .sr_ratio = 1, .reference = {7, 7}});
  const ParameterStore store(module, 1, false);
  Randomize(store);
  const Tensor x = RandomTensor({2, kHeight, kWidth, kChannels}, DType::kF32, 2);
  const AggregatedAttentionShape shape = ShapeOf(x, kHeads, 0, kHeight * kWidth);
  const std::vector<double> qkv = Project(ToDouble(x), store, "qkv");
  const PositionBias position_bias = module.Bias({kHeight, kWidth});
  const BiasRef bias(position_bias);
  const std::vector<double> temperature = ValuesOf(store, "temperature");
  const std::vector<double> query_embedding = ValuesOf(store, "query_embedding");
  ExpectMap(module.AttentionMap(x), [&](int64_t pixel) {
    const std::vector<double> in = WithValuesIn(pixel, qkv, 3 * kChannels, 3, kChannels);
    std::vector<double> out(x.numel());
    AggregatedAttentionRef<double>(shape, bias.args,
                                   {.q = in.data(),
                                    .q_stride = 3 * kChannels,
                                    .pooled_k = in.data() + kChannels,
                                    .pooled_v = in.data() + 2 * kChannels,
                                    .pooled_stride = 3 * kChannels,
                                    .temperature = temperature.data(),
                                    .query_embedding = query_embedding.data(),
                                    .position_bias = bias.values.data()},
                                   out.data());
    return SumOf(out);
  });
}

TEST(AttentionMap, WithoutAnyWeightIsEven) {
  const Tensor map = Tensor::Zeros({1, 2, 2}, DType::kF32);
  NormalizeAttentionMap(map);
  EXPECT_EQ(map.data<float>()[3], 1.0f);
}

}  // namespace
}  // namespace tessera
