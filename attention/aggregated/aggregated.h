// Aggregated attention (Shi, TransNeXt, arXiv 2311.17132): every query attends, in one softmax, to
// the neighbourhood around it and to a coarse pooled copy of the whole map.
#ifndef TESSERA_ATTENTION_AGGREGATED_AGGREGATED_H_
#define TESSERA_ATTENTION_AGGREGATED_AGGREGATED_H_

#include <cstdint>

#include "attention/aggregated/position_bias.h"
#include "layers/linear.h"
#include "layers/module.h"
#include "layers/norm.h"

namespace tessera {

// Learned values of a head h, all f32.
struct QueryWeights {
  const Tensor& temperature;      // tau [h, 1, 1]
  const Tensor& query_embedding;  // E [h, 1, d]
};
struct NeighbourWeights {
  const Tensor& bias;        // R [h, L]
  const Tensor& tokens;      // T [h, d, L]
  const Tensor& token_bias;  // beta [h, 1, L]
};

// With x^ = x / max(|x|, 1e-12) per head, a query of position n is
//   q_n = (q^_n + E) softplus(tau) ln(number of keys that n sees),
// its logits are q_n . k^_m + R for each of the L = window^2 positions m around it that lie inside
// of the map, and q_n . pooled_k^_j + bias[n, j] for each of the P pooled keys, and
//   out_n = sum over m of (p_m + q^_n . T_m + beta_m) v_m + sum over j of p_j pooled_v_j
// with p the softmax of all logits together.
// q [B, H, W, C], kv [B, H, W, 2C] (k, then v) and pooled_kv [B, P, 2C], f32 or bf16, channels
// (head, head_dim) -> out [B, H, W, C] of their dtype. `window` is odd. Saves its inputs alone;
// logits and softmax are f32, computed again in the backward pass.
Tensor AggregatedAttention(const Tensor& q, const Tensor& kv, const Tensor& pooled_kv,
                           const QueryWeights& query, const NeighbourWeights& neighbours,
                           const PositionBias& bias, int64_t num_heads, int64_t window);

// The same without a neighbourhood, among all N = H W positions of a map: qkv [B, H, W, 3C] (q, k,
// v), a bias for each pair of positions.
Tensor LengthScaledAttention(const Tensor& qkv, const QueryWeights& query, const PositionBias& bias,
                             int64_t num_heads);

namespace attention {

struct AggregatedAttentionConfig {
  int64_t dim = 0;
  int64_t num_heads = 1;
  int64_t sr_ratio = 1;         // side of a pooled cell; 1: LengthScaledAttention
  int64_t window = 3;           // odd
  int64_t fixed_pool_size = 0;  // side of the pooled grid; 0: size of the map / sr_ratio
  GridSize reference;           // map in training, the scale of position biases
  // Position biases are made for maps of this size and resized to others; {0, 0}: they are made for
  // every map's own size.
  GridSize bias_map;
};

// Parameters: temperature, query_embedding, cpb_fc1, cpb_fc2 and proj; with pooling
// relative_pos_bias_local, learnable_tokens, learnable_bias, q, kv, sr and norm, without it qkv.
// Weight decay is for the projections and for learnable_tokens and learnable_bias.
class AggregatedAttention : public Module {
 public:
  explicit AggregatedAttention(const AggregatedAttentionConfig& config);
  // x [B, H, W, dim], f32 or bf16 -> [B, H, W, dim] of `out_dtype`; q, k and v are of x's dtype.
  Tensor Forward(const Tensor& x, DType out_dtype) const;

  // The softmax weights that positions get as neighbours, and their equal shares in those of the
  // pooled cells that they lie in; without the learned tokens, which are no softmax. See
  // attention/attention_map.h.
  Tensor AttentionMap(const Tensor& x) const;

  // The grid that a map is pooled to; the map itself without pooling.
  GridSize PooledGrid(const GridSize& map) const;
  // Of every position of a map to every cell of its pooled grid.
  PositionBias Bias(const GridSize& map) const;

 private:
  // The tables of biases for `map`, those of the last call where it had the same size.
  const PositionBiasTables& TablesOf(const GridSize& map) const;
  // The pooled map's keys and values [B, h, w, 2 dim], of `dtype`.
  Tensor PooledKv(const Tensor& x, DType dtype) const;
  bool pools() const { return config_.sr_ratio > 1; }

  AggregatedAttentionConfig config_;
  Parameter& temperature_;
  Parameter& query_embedding_;
  Parameter* local_bias_ = nullptr;
  Parameter* tokens_ = nullptr;
  Parameter* token_bias_ = nullptr;
  layers::Linear* q_ = nullptr;
  layers::Linear* kv_ = nullptr;
  layers::Linear* sr_ = nullptr;
  layers::LayerNorm* norm_ = nullptr;
  layers::Linear* qkv_ = nullptr;
  layers::Linear* cpb_fc1_;
  layers::Linear* cpb_fc2_;
  layers::Linear* proj_;
  mutable GridSize tables_map_;
  mutable PositionBiasTables tables_;
};

}  // namespace attention
}  // namespace tessera

#endif  // TESSERA_ATTENTION_AGGREGATED_AGGREGATED_H_
