// Attention among channels instead of tokens (Ding et al., DaViT, arXiv 2204.03645): linear in the
// number of tokens, and every output sees the whole image.
#ifndef TESSERA_ATTENTION_CHANNEL_CHANNEL_H_
#define TESSERA_ATTENTION_CHANNEL_CHANNEL_H_

#include <cstdint>

#include "attention/channel/channel_kernel.h"
#include "layers/linear.h"
#include "layers/module.h"

namespace tessera {

// qkv [B, N, 3C], f32 or bf16: q, k and v, each with channels (head, head_dim); C a multiple of
// num_heads -> out [B, N, C] of `dtype`. For each image and head, with d = head_dim,
//   kKeysTimesValues:   A = softmax(d^-1/2 k^T v),  out[t, i] = sum over j of A[i, j] q[t, j]
//   kQueriesTimesKeys:  A = softmax(N^-1/2 q^T k),  out[t, i] = sum over j of A[i, j] v[t, j]
// where A is [d, d], normalised over its last index. The logits are sums over all tokens, kept in
// f32. Saves qkv, rounded to `dtype`, and A; the backward pass computes in `dtype`.
Tensor ChannelAttention(const Tensor& qkv, int64_t num_heads, ChannelAttentionVersion version,
                        DType dtype);

namespace attention {

// Parameters: qkv.weight [3C, C], qkv.bias [3C] if `qkv_bias`, proj.weight [C, C], proj.bias [C],
// with C = dim.
class ChannelAttention : public Module {
 public:
  ChannelAttention(int64_t dim, int64_t num_heads, bool qkv_bias, ChannelAttentionVersion version);
  // x [B, N, C] or [B, H, W, C] of `dtype`, f32 or bf16 -> the same shape of `dtype`. x may also be
  // f32 where `dtype` is bf16: then what the logits come from is not rounded, only what follows
  // them, and the products of the backward pass.
  Tensor Forward(const Tensor& x, DType dtype) const;

  // See attention/attention_map.h; x [B, H, W, C].
  Tensor AttentionMap(const Tensor& x) const;

 private:
  layers::Linear& qkv_;
  layers::Linear& proj_;
  int64_t num_heads_;
  ChannelAttentionVersion version_;
};

}  // namespace attention
}  // namespace tessera

#endif  // TESSERA_ATTENTION_CHANNEL_CHANNEL_H_
