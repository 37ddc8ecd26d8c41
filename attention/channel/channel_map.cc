#include <algorithm>
#include <cmath>
#include <vector>

#include "attention/attention_map.h"
#include "attention/channel/channel.h"
#include "core/check.h"

namespace tessera {
namespace {

// One head's matrix A [d, d] of channel attention, from rows that are `stride` apart.
std::vector<double> AttentionOfChannels(const float* left, const float* right, int64_t tokens,
                                        int64_t stride, int64_t d, double scale) {
  std::vector<double> a(static_cast<size_t>(d * d), 0.0);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < d * d; ++i) {
      a[i] += scale * left[t * stride + i / d] * right[t * stride + i % d];
    }
  }
  for (auto row = a.begin(); row != a.end(); row += d) {
    const double max = *std::max_element(row, row + d);
    double sum = 0;
    for (auto x = row; x != row + d; ++x) sum += * x = std::exp(*x - max);
    for (auto x = row; x != row + d; ++x) *x /= sum;
  }
  return a;
}

}  // namespace

namespace attention {

// Channel attention has no weights of positions. What counts is a position's part in the logits,
// which are sums over positions: |left_i right_j|, weighted by the attention A_ij that they make.
Tensor ChannelAttention::AttentionMap(const Tensor& x) const {
  CHECK_EQ(x.rank(), 4) << "a map of " << x.shape();
  const Tensor qkv = qkv_.Forward(x, DType::kF32);
  const int64_t tokens = x.dim(1) * x.dim(2), channels = x.dim(3), d = channels / num_heads_;
  const bool v1 = version_ == ChannelAttentionVersion::kKeysTimesValues;
  const double scale = 1.0 / std::sqrt(static_cast<double>(v1 ? d : tokens));
  Tensor map = Tensor::Zeros({x.dim(0), x.dim(1), x.dim(2)}, DType::kF32);
  const int64_t stride = 3 * channels;
  for (int64_t bh = 0; bh < x.dim(0) * num_heads_; ++bh) {
    const int64_t b = bh / num_heads_, head = bh % num_heads_;
    const float* left = qkv.data<float>() + b * tokens * stride + head * d + (v1 ? channels : 0);
    const float* right = left + channels;
    const std::vector<double> a = AttentionOfChannels(left, right, tokens, stride, d, scale);
    for (int64_t t = 0; t < tokens; ++t) {
      double sum = 0;
      for (int64_t i = 0; i < d * d; ++i) {
        sum += a[i] * std::abs(left[t * stride + i / d] * right[t * stride + i % d]);
      }
      map.data<float>()[b * tokens + t] += static_cast<float>(sum);
    }
  }
  return NormalizeAttentionMap(map);
}

}  // namespace attention
}  // namespace tessera
