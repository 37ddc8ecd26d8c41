// Aggregated attention by plain loops in any float type: the truth that tests compare with.
#ifndef TESSERA_ATTENTION_AGGREGATED_AGGREGATED_REF_H_
#define TESSERA_ATTENTION_AGGREGATED_AGGREGATED_REF_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "attention/aggregated/aggregated_kernel.h"

namespace tessera {

// Arguments of the definition, as in AggregatedAttentionArgs, all in one float type.
template <typename F>
struct AggregatedAttentionRefInput {
  const F* q;
  const F* k;
  const F* v;
  int64_t q_stride;
  int64_t kv_stride;
  const F* pooled_k;
  const F* pooled_v;
  int64_t pooled_stride;
  const F* temperature;
  const F* query_embedding;
  const F* position_bias;
  const F* local_bias;
  const F* tokens;
  const F* token_bias;
};

// The sum of a[c] b[c], and that divided by the L2 norm of b.
template <typename F>
F DotOf(const F* a, const F* b, int64_t d) {
  F sum = 0;
  for (int64_t c = 0; c < d; ++c) sum += a[c] * b[c];
  return sum;
}
template <typename F>
F DotWithNormalized(const F* a, const F* b, int64_t d) {
  return DotOf(a, b, d) / std::max(std::sqrt(DotOf(b, b, d)), F(1e-12));
}

// out [B, H, W, C].
template <typename F>
void AggregatedAttentionRef(const AggregatedAttentionShape& s, const PositionBiasArgs& bias,
                            const AggregatedAttentionRefInput<F>& in, F* out) {
  const int64_t d = s.head_dim, channels = s.channels(), slots = s.slots(), radius = s.window / 2;
  for (int64_t token = 0; token < s.tokens(); ++token) {
    const int64_t b = token / s.positions();
    const int64_t y = token / s.width % s.height, x = token % s.width;
    for (int64_t head = 0; head < s.num_heads; ++head) {
      const F* q = in.q + token * in.q_stride + head * d;
      const F norm = std::max(std::sqrt(DotOf(q, q, d)), F(1e-12));
      // Neighbours that lie inside of the map: their slots, and where their rows are.
      std::vector<std::pair<int64_t, int64_t>> neighbours;
      for (int64_t slot = 0; slot < slots; ++slot) {
        const int64_t i = y + slot / s.window - radius, j = x + slot % s.window - radius;
        if (i < 0 || i >= s.height || j < 0 || j >= s.width) continue;
        neighbours.push_back({slot, ((b * s.height + i) * s.width + j) * in.kv_stride + head * d});
      }
      const F length = std::log(static_cast<F>(neighbours.size() + s.num_pooled));
      const F factor = std::log1p(std::exp(in.temperature[head])) * length;
      std::vector<F> query(d);
      for (int64_t c = 0; c < d; ++c) {
        query[c] = (q[c] / norm + in.query_embedding[head * d + c]) * factor;
      }

      std::vector<F> logits;
      for (const auto& [slot, at] : neighbours) {
        logits.push_back(DotWithNormalized(query.data(), in.k + at, d) +
                         in.local_bias[head * slots + slot]);
      }
      for (int64_t j = 0; j < s.num_pooled; ++j) {
        const F* k = in.pooled_k + (b * s.num_pooled + j) * in.pooled_stride + head * d;
        logits.push_back(DotWithNormalized(query.data(), k, d) +
                         in.position_bias[head * bias.head_stride + bias.key_offsets[j] +
                                          y * bias.row_stride + x]);
      }
      const F max = *std::max_element(logits.begin(), logits.end());
      F sum = 0;
      for (F& logit : logits) sum += logit = std::exp(logit - max);

      std::vector<F> weights;  // of the neighbours' values
      for (size_t n = 0; n < neighbours.size(); ++n) {
        const int64_t slot = neighbours[n].first;
        F weight = logits[n] / sum + in.token_bias[head * slots + slot];
        for (int64_t c = 0; c < d; ++c) {
          weight += q[c] / norm * in.tokens[(head * d + c) * slots + slot];
        }
        weights.push_back(weight);
      }
      for (int64_t c = 0; c < d; ++c) {
        F value = 0;
        for (size_t n = 0; n < neighbours.size(); ++n) {
          value += weights[n] * in.v[neighbours[n].second + c];
        }
        for (int64_t j = 0; j < s.num_pooled; ++j) {
          const F* v = in.pooled_v + (b * s.num_pooled + j) * in.pooled_stride + head * d;
          value += logits[neighbours.size() + j] / sum * v[c];
        }
        out[token * channels + head * d + c] = value;
      }
    }
  }
}

}  // namespace tessera

#endif  // TESSERA_ATTENTION_AGGREGATED_AGGREGATED_REF_H_
