// Position biases that a small network makes of relative coordinates on a logarithmic scale
// (log-CPB: Liu et al., arXiv 2111.09883), as TransNeXt uses them: from every position of a map to
// every cell of a pooled one, for maps and grids of any size.
#ifndef TESSERA_ATTENTION_AGGREGATED_POSITION_BIAS_H_
#define TESSERA_ATTENTION_AGGREGATED_POSITION_BIAS_H_

#include <cstdint>
#include <vector>

#include "tensor/ops/gelu_pool/pooled_axis.h"
#include "tensor/tensor.h"

namespace tessera {

struct GridSize {
  int64_t height = 0;
  int64_t width = 0;

  friend bool operator==(const GridSize&, const GridSize&) = default;
};

// The distances on one axis between positions and the centres of pooled cells.
struct RelativeAxis {
  // Position y and cell j are coordinates[first[j] + y] apart.
  std::vector<float> coordinates;
  std::vector<int64_t> first;
};

// A distance of r positions has the coordinate sign(r') log2(|r'| + 1) / 3 with r' = 8 r /
// (reference - 1), where `reference` >= 2 is the size of the axis in training.
RelativeAxis MakeRelativeAxis(const PooledAxis& axis, int64_t reference);

// The bias of query (y, x) and key j in a head is values[head][key_offsets[j] + y * row_stride +
// x].
struct PositionBias {
  Tensor values;       // f32 [num_heads, ...]
  Tensor key_offsets;  // i64 [keys]
  int64_t row_stride = 0;
};

// The network: fc2(ReLU(fc1(y, x))).
struct LogCpbWeights {
  Tensor fc1;       // f32 [hidden, 2]
  Tensor fc1_bias;  // f32 [hidden]
  Tensor fc2;       // f32 [num_heads, hidden]
  Tensor fc2_bias;  // f32 [num_heads]
};

// Its values at all pairs of a coordinate in y [m] and one in x [n], f32: [num_heads, m, n].
// Differentiable in the weights. Saves nothing: hidden values are computed again.
Tensor LogCpb(const Tensor& y, const Tensor& x, const LogCpbWeights& weights);

// What biases of some sizes need beside the network: no learned values, so a module keeps it from
// step to step.
struct PositionBiasTables {
  Tensor y, x;  // f32 [m], [n]: the coordinates on each axis
  // f32 [cells * positions, coordinates] of each axis: the interpolation of biases made for other
  // sizes; undefined where there is none.
  Tensor resize_rows, resize_columns;
  Tensor key_offsets;      // as PositionBias has them
  int64_t row_stride = 0;  // likewise
};

// For the queries of `map` and the cells of `pooled`.
PositionBiasTables MakePositionBiasTables(const GridSize& map, const GridSize& pooled,
                                          const GridSize& reference, Device device);

// For biases made for the sizes `from_map` and `from_pooled` and resized, bilinearly between
// centres of pixels, to `map` and `pooled`.
PositionBiasTables MakeResizedPositionBiasTables(const GridSize& from_map,
                                                 const GridSize& from_pooled, const GridSize& map,
                                                 const GridSize& pooled, const GridSize& reference,
                                                 Device device);

// The biases f32 of all heads; differentiable in the weights, which are on the tables' device.
PositionBias MakePositionBias(const PositionBiasTables& tables, const LogCpbWeights& weights);

}  // namespace tessera

#endif  // TESSERA_ATTENTION_AGGREGATED_POSITION_BIAS_H_
