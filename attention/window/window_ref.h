// Window attention by plain loops in any float type: the truth that tests compare with. It follows
// the definition literally: the map is padded on the right and bottom to whole windows, padded
// positions have q, k, v = bias and take part as keys and values, and their outputs are dropped.
#ifndef TESSERA_ATTENTION_WINDOW_WINDOW_REF_H_
#define TESSERA_ATTENTION_WINDOW_WINDOW_REF_H_

#include <cmath>
#include <cstdint>
#include <vector>

#include "attention/window/window_kernel.h"

namespace tessera {

// qkv [B, H, W, 3C], bias [3C] -> out [B, H, W, C].
template <typename F>
void WindowAttentionRef(const WindowAttentionShape& s, const F* qkv, const F* bias, F* out) {
  using std::exp, std::sqrt;
  const int64_t d = s.head_dim, channels = s.channels();
  const auto row = [&](int64_t b, int64_t y, int64_t x) {
    const bool inside = y < s.height && x < s.width;
    return inside ? qkv + ((b * s.height + y) * s.width + x) * 3 * channels : bias;
  };
  for (int64_t token = 0; token < s.tokens(); ++token) {
    const int64_t b = token / (s.height * s.width);
    const int64_t y = token / s.width % s.height, x = token % s.width;
    const int64_t top = y / s.window * s.window, left = x / s.window * s.window;
    for (int64_t head = 0; head < s.num_heads; ++head) {
      const F* q = row(b, y, x) + head * d;
      std::vector<const F*> keys;
      std::vector<F> logits;
      F max = -INFINITY;
      for (int64_t i = top; i < top + s.window; ++i) {
        for (int64_t j = left; j < left + s.window; ++j) {
          keys.push_back(row(b, i, j) + channels + head * d);
          F dot = 0;
          for (int64_t c = 0; c < d; ++c) dot += q[c] * keys.back()[c];
          logits.push_back(dot / sqrt(static_cast<F>(d)));
          if (logits.back() > max) max = logits.back();
        }
      }
      F sum = 0;
      for (F& logit : logits) sum += logit = exp(logit - max);
      for (int64_t c = 0; c < d; ++c) {
        F value = 0;
        for (size_t k = 0; k < keys.size(); ++k) value += logits[k] / sum * keys[k][channels + c];
        out[token * channels + head * d + c] = value;
      }
    }
  }
}

}  // namespace tessera

#endif  // TESSERA_ATTENTION_WINDOW_WINDOW_REF_H_
