// Channel attention by plain loops in any float type: the truth that tests compare with.
#ifndef TESSERA_ATTENTION_CHANNEL_CHANNEL_REF_H_
#define TESSERA_ATTENTION_CHANNEL_CHANNEL_REF_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "attention/channel/channel_kernel.h"

namespace tessera {

// qkv [B, N, 3C] -> out [B, N, C].
template <typename F>
void ChannelAttentionRef(const ChannelAttentionShape& s, const F* qkv, F* out) {
  const int64_t d = s.head_dim, channels = s.channels();
  const bool v1 = s.version == ChannelAttentionVersion::kKeysTimesValues;
  const F scale = 1 / std::sqrt(static_cast<F>(v1 ? d : s.tokens));
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t head = 0; head < s.num_heads; ++head) {
      const F* q = qkv + b * s.tokens * 3 * channels + head * d;
      const F* k = q + channels;
      const F* v = q + 2 * channels;
      const F* left = v1 ? k : q;
      const F* right = v1 ? v : k;
      const F* values = v1 ? q : v;
      for (int64_t i = 0; i < d; ++i) {
        std::vector<F> row(static_cast<size_t>(d), F(0));
        for (int64_t t = 0; t < s.tokens; ++t) {
          for (int64_t j = 0; j < d; ++j)
            row[j] += scale * left[t * 3 * channels + i] * right[t * 3 * channels + j];
        }
        const F max = *std::max_element(row.begin(), row.end());
        F sum = 0;
        for (F& x : row) sum += x = std::exp(x - max);
        for (int64_t t = 0; t < s.tokens; ++t) {
          F value = 0;
          for (int64_t j = 0; j < d; ++j) value += row[j] / sum * values[t * 3 * channels + j];
          out[(b * s.tokens + t) * channels + head * d + i] = value;
        }
      }
    }
  }
}

}  // namespace tessera

#endif  // TESSERA_ATTENTION_CHANNEL_CHANNEL_REF_H_
