// Attention inside windows of a feature map (Liu et al., arXiv 2103.14030, without shift and
// position bias; as the spatial attention of DaViT, Ding et al., arXiv 2204.03645).
#ifndef TESSERA_ATTENTION_WINDOW_WINDOW_H_
#define TESSERA_ATTENTION_WINDOW_WINDOW_H_

#include <cstdint>

#include "layers/linear.h"
#include "layers/module.h"

namespace tessera {

// The map is cut into window x window squares from the top left; in each one and for each head,
//   out = softmax(head_dim^-1/2 q k^T) v.
// qkv [B, H, W, 3C], f32 or bf16: q, k and v, each with channels (head, head_dim); C a multiple of
// num_heads -> out [B, H, W, C] of qkv's dtype.
//
// H and W need not be multiples of `window`: the squares at the right and the bottom also hold
// positions outside the map, which are not masked. Their q, k and v are `qkv_bias` (f32 [3C], or
// undefined for zeros), what the projection makes of a zero input, and its gradient includes
// theirs. Saves qkv alone; logits are computed again in the backward pass.
Tensor WindowAttention(const Tensor& qkv, const Tensor& qkv_bias, int64_t num_heads,
                       int64_t window);

namespace attention {

// Parameters: qkv.weight [3C, C], qkv.bias [3C] if `qkv_bias`, proj.weight [C, C], proj.bias [C],
// with C = dim.
class WindowAttention : public Module {
 public:
  WindowAttention(int64_t dim, int64_t num_heads, int64_t window, bool qkv_bias);
  // x [B, H, W, C], f32 or bf16 -> [B, H, W, C] of `out_dtype`; q, k and v are of x's dtype.
  Tensor Forward(const Tensor& x, DType out_dtype) const;

  // See attention/attention_map.h.
  Tensor AttentionMap(const Tensor& x) const;

 private:
  layers::Linear& qkv_;
  layers::Linear& proj_;
  int64_t num_heads_;
  int64_t window_;
};

}  // namespace attention
}  // namespace tessera

#endif  // TESSERA_ATTENTION_WINDOW_WINDOW_H_
