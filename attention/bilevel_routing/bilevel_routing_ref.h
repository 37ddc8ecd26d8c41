// Bi-level routing attention by plain loops in any float type: the truth that tests compare with.
#ifndef TESSERA_ATTENTION_BILEVEL_ROUTING_BILEVEL_ROUTING_REF_H_
#define TESSERA_ATTENTION_BILEVEL_ROUTING_BILEVEL_ROUTING_REF_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "attention/bilevel_routing/bilevel_routing_kernel.h"

namespace tessera {

// The tokens of a region inside the map, as indices into the image.
inline std::vector<int64_t> RegionTokensRef(const RoutedAttentionShape& s, int64_t region) {
  const int64_t top = region / s.region_columns() * s.region_height;
  const int64_t left = region % s.region_columns() * s.region_width;
  std::vector<int64_t> tokens;
  for (int64_t y = top; y < std::min(s.height, top + s.region_height); ++y) {
    for (int64_t x = left; x < std::min(s.width, left + s.region_width); ++x) {
      tokens.push_back(y * s.width + x);
    }
  }
  return tokens;
}

// qkv [B, H, W, 3C] -> routes [B, regions, topk]: by the product of the regions' mean query and
// mean key, descending; the lower index first where they are equal.
template <typename F>
std::vector<int32_t> RouteRegionsRef(const RoutedAttentionShape& s, const F* qkv) {
  const int64_t regions = s.regions(), channels = s.channels();
  std::vector<int32_t> routes;
  for (int64_t b = 0; b < s.batch; ++b) {
    std::vector<F> means(regions * 2 * channels);
    for (int64_t r = 0; r < regions; ++r) {
      const std::vector<int64_t> tokens = RegionTokensRef(s, r);
      for (const int64_t t : tokens) {
        for (int64_t c = 0; c < 2 * channels; ++c) {
          means[r * 2 * channels + c] +=
              qkv[(b * s.height * s.width + t) * 3 * channels + c] / static_cast<F>(tokens.size());
        }
      }
    }
    for (int64_t r = 0; r < regions; ++r) {
      std::vector<F> scores(regions);
      for (int64_t other = 0; other < regions; ++other) {
        for (int64_t c = 0; c < channels; ++c) {
          scores[other] += means[r * 2 * channels + c] * means[other * 2 * channels + channels + c];
        }
      }
      std::vector<int32_t> order(regions);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t i, int32_t j) { return scores[i] > scores[j]; });
      routes.insert(routes.end(), order.begin(), order.begin() + s.topk);
    }
  }
  return routes;
}

// qkv [B, H, W, 3C], routes [B, regions, topk] -> out [B, H, W, C].
template <typename F>
void RoutedAttentionRef(const RoutedAttentionShape& s, const F* qkv, const int32_t* routes,
                        F* out) {
  using std::exp;
  const int64_t d = s.head_dim, channels = s.channels();
  for (int64_t b = 0; b < s.batch; ++b) {
    const auto row = [&](int64_t token) { return (b * s.height * s.width + token) * channels; };
    for (int64_t region = 0; region < s.regions(); ++region) {
      std::vector<int64_t> keys;
      for (int64_t j = 0; j < s.topk; ++j) {
        const int32_t route = routes[(b * s.regions() + region) * s.topk + j];
        for (const int64_t t : RegionTokensRef(s, route)) keys.push_back(t);
      }
      // Positions past the map: logits 0, values 0.
      const int64_t missing = s.topk * s.region_tokens() - static_cast<int64_t>(keys.size());
      for (const int64_t query : RegionTokensRef(s, region)) {
        for (int64_t head = 0; head < s.num_heads; ++head) {
          const F* q = qkv + 3 * row(query) + head * d;
          std::vector<F> logits;
          F max = missing > 0 ? 0 : -INFINITY;
          for (const int64_t key : keys) {
            const F* k = qkv + 3 * row(key) + channels + head * d;
            F dot = 0;
            for (int64_t c = 0; c < d; ++c) dot += q[c] * k[c];
            logits.push_back(dot * static_cast<F>(s.scale));
            max = std::max(max, logits.back());
          }
          F sum = static_cast<F>(missing) * exp(-max);
          for (F& logit : logits) sum += logit = exp(logit - max);
          for (int64_t c = 0; c < d; ++c) {
            F value = 0;
            for (size_t k = 0; k < keys.size(); ++k) {
              value += logits[k] / sum * qkv[3 * row(keys[k]) + 2 * channels + head * d + c];
            }
            out[row(query) + head * d + c] = value;
          }
        }
      }
    }
  }
}

// out [B, H, W, C] += a depthwise convolution with kernels [C, K, K] and bias [C] of x, whose
// pixels are `stride` elements apart; padding K / 2.
template <typename F>
void AddDepthwiseRef(const RoutedAttentionShape& s, int64_t kernel_size, const F* x, int64_t stride,
                     const F* weight, const F* bias, F* out) {
  const int64_t channels = s.channels(), reach = kernel_size / 2;
  for (int64_t token = 0; token < s.tokens(); ++token) {
    const int64_t y = token / s.width % s.height, x0 = token % s.width;
    for (int64_t c = 0; c < channels; ++c) {
      F sum = bias[c];
      for (int64_t i = std::max<int64_t>(0, y - reach); i <= std::min(s.height - 1, y + reach);
           ++i) {
        for (int64_t j = std::max<int64_t>(0, x0 - reach); j <= std::min(s.width - 1, x0 + reach);
             ++j) {
          const int64_t tap = (i - y + reach) * kernel_size + j - x0 + reach;
          sum += x[(token + (i - y) * s.width + j - x0) * stride + c] *
                 weight[c * kernel_size * kernel_size + tap];
        }
      }
      out[token * channels + c] += sum;
    }
  }
}

}  // namespace tessera

#endif  // TESSERA_ATTENTION_BILEVEL_ROUTING_BILEVEL_ROUTING_REF_H_
