// Puts aggregated attention, with neighbourhoods of 3 x 3 and pooled cells of 4 x 4, and attention
// among all positions under the conformance tests.
#include <algorithm>

#include "attention/aggregated/aggregated.h"
#include "attention/aggregated/aggregated_ref.h"
#include "attention/registry.h"

namespace tessera {
namespace {

// A table of biases with the layout that coordinates give it, and random values in their place.
struct BiasTable {
  BiasTable(const AttentionSize& size, const GridSize& pooled)
      : y(Axis(size.height, pooled.height)),
        x(Axis(size.width, pooled.width)),
        shape{size.num_heads, static_cast<int64_t>(y.coordinates.size()),
              static_cast<int64_t>(x.coordinates.size())} {
    for (const int64_t i : y.first) {
      for (const int64_t j : x.first) key_offsets.push_back(i * shape[2] + j);
    }
  }
  static RelativeAxis Axis(int64_t size, int64_t cells) {
    return MakeRelativeAxis({std::max<int64_t>(size, 1), cells}, 14);
  }
  PositionBias With(const Tensor& values) const {
    return {values, Tensor::From<int64_t>({static_cast<int64_t>(key_offsets.size())}, key_offsets),
            shape[2]};
  }
  PositionBiasArgs Args() const {
    return {.key_offsets = key_offsets.data(),
            .row_stride = shape[2],
            .head_stride = shape[1] * shape[2]};
  }

  RelativeAxis y, x;
  Shape shape;
  std::vector<int64_t> key_offsets;
};

AggregatedAttentionShape ShapeOf(const AttentionSize& size, int64_t window, int64_t num_pooled) {
  return {.batch = size.batch,
          .height = size.height,
          .width = size.width,
          .num_heads = size.num_heads,
          .head_dim = size.head_dim,
          .window = window,
          .num_pooled = num_pooled};
}

AttentionProblem AggregatedProblem(const AttentionSize& size) {
  const GridSize grid = {std::max<int64_t>(1, size.height / 4),
                         std::max<int64_t>(1, size.width / 4)};
  const AggregatedAttentionShape s = ShapeOf(size, 3, grid.height * grid.width);
  const BiasTable table(size, grid);
  const int64_t channels = s.channels(), heads = s.num_heads, d = s.head_dim, slots = s.slots();
  return {
      .inputs = {{"q", {s.batch, s.height, s.width, channels}},
                 {"kv", {s.batch, s.height, s.width, 2 * channels}},
                 {"pooled_kv", {s.batch, s.num_pooled, 2 * channels}},
                 {"temperature", {heads, 1, 1}, /*parameter=*/true, 2.0},
                 {"query_embedding", {heads, 1, d}, true},
                 {"local_bias", {heads, slots}, true},
                 {"tokens", {heads, d, slots}, true},
                 {"token_bias", {heads, 1, slots}, true},
                 {"position_bias", table.shape, true}},
      .multiply_adds = s.pairs(3 * slots + 2 * s.num_pooled),
      .forward =
          [s, table](const std::vector<Tensor>& in) {
            return AggregatedAttention(in[0], in[1], in[2], {in[3], in[4]}, {in[5], in[6], in[7]},
                                       table.With(in[8]), s.num_heads, s.window);
          },
      .reference =
          [s, table, channels](const std::vector<const double*>& in, double* out) {
            AggregatedAttentionRef<double>(s, table.Args(),
                                           {.q = in[0],
                                            .k = in[1],
                                            .v = in[1] + channels,
                                            .q_stride = channels,
                                            .kv_stride = 2 * channels,
                                            .pooled_k = in[2],
                                            .pooled_v = in[2] + channels,
                                            .pooled_stride = 2 * channels,
                                            .temperature = in[3],
                                            .query_embedding = in[4],
                                            .position_bias = in[8],
                                            .local_bias = in[5],
                                            .tokens = in[6],
                                            .token_bias = in[7]},
                                           out);
          },
  };
}

AttentionProblem LengthScaledProblem(const AttentionSize& size) {
  const AggregatedAttentionShape s = ShapeOf(size, 0, size.height * size.width);
  BiasTable table(size, {std::max<int64_t>(1, size.height), std::max<int64_t>(1, size.width)});
  table.key_offsets.resize(s.num_pooled);  // none for an empty map
  const int64_t channels = s.channels();
  return {
      .inputs = {{"qkv", {s.batch, s.height, s.width, 3 * channels}},
                 {"temperature", {s.num_heads, 1, 1}, /*parameter=*/true, 2.0},
                 {"query_embedding", {s.num_heads, 1, s.head_dim}, true},
                 {"position_bias", table.shape, true}},
      .multiply_adds = s.pairs(2 * s.num_pooled),
      .forward =
          [s, table](const std::vector<Tensor>& in) {
            return LengthScaledAttention(in[0], {in[1], in[2]}, table.With(in[3]), s.num_heads);
          },
      .reference =
          [s, table, channels](const std::vector<const double*>& in, double* out) {
            AggregatedAttentionRef<double>(s, table.Args(),
                                           {.q = in[0],
                                            .q_stride = 3 * channels,
                                            .pooled_k = in[0] + channels,
                                            .pooled_v = in[0] + 2 * channels,
                                            .pooled_stride = 3 * channels,
                                            .temperature = in[1],
                                            .query_embedding = in[2],
                                            .position_bias = in[3]},
                                           out);
          },
  };
}

REGISTER_ATTENTION(aggregated, AggregatedProblem);
REGISTER_ATTENTION(length_scaled, LengthScaledProblem);

}  // namespace
}  // namespace tessera
