#include "attention/aggregated/aggregated.h"
#include "attention/attention_map.h"

namespace tessera {
namespace {

// Adds to every position its share in the weight of each of its cells: the transpose of averaging.
void AddShares(const Tensor& of_cells, const Tensor& map) {
  const PooledAxis rows = {map.dim(1), of_cells.dim(1)}, columns = {map.dim(2), of_cells.dim(2)};
  const float* weight = of_cells.data<float>();
  for (int64_t b = 0; b < map.dim(0); ++b) {
    float* image = map.data<float>() + b * rows.size * columns.size;
    for (int64_t i = 0; i < rows.cells; ++i) {
      for (int64_t j = 0; j < columns.cells; ++j) {
        const int64_t pixels = (rows.End(i) - rows.Begin(i)) * (columns.End(j) - columns.Begin(j));
        const float share = *weight++ / static_cast<float>(pixels);
        for (int64_t y = rows.Begin(i); y < rows.End(i); ++y) {
          for (int64_t x = columns.Begin(j); x < columns.End(j); ++x) {
            image[y * columns.size + x] += share;
          }
        }
      }
    }
  }
}

}  // namespace

namespace attention {

Tensor AggregatedAttention::AttentionMap(const Tensor& x) const {
  const QueryWeights query = {temperature_.value(), query_embedding_.value()};
  const PositionBias bias = Bias({x.dim(1), x.dim(2)});
  if (!pools()) {
    const Tensor qkv = qkv_->Forward(x, DType::kF32);
    return NormalizeAttentionMap(AttentionReceived(qkv, 3, config_.dim, [&](const Tensor& in) {
      return LengthScaledAttention(in, query, bias, config_.num_heads);
    }));
  }
  const Tensor no_tokens = Tensor::Zeros(tokens_->shape(), DType::kF32);
  const Tensor no_token_bias = Tensor::Zeros(token_bias_->shape(), DType::kF32);
  const NeighbourWeights neighbours = {local_bias_->value(), no_tokens, no_token_bias};
  const Tensor q = q_->Forward(x, DType::kF32), kv = kv_->Forward(x, DType::kF32);
  const Tensor pooled_kv = PooledKv(x, DType::kF32);
  const auto attend = [&](const Tensor& kv, const Tensor& pooled_kv) {
    return tessera::AggregatedAttention(q, kv, pooled_kv, query, neighbours, bias,
                                        config_.num_heads, config_.window);
  };
  const Tensor map = AttentionReceived(kv, 2, config_.dim,
                                       [&](const Tensor& in) { return attend(in, pooled_kv); });
  AddShares(AttentionReceived(pooled_kv, 2, config_.dim,
                              [&](const Tensor& in) { return attend(kv, in); }),
            map);
  return NormalizeAttentionMap(map);
}

}  // namespace attention
}  // namespace tessera
