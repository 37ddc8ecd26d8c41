// Where attention looks, as a picture: a number for each position of a map, of mean 1, that says
// how much it counts for the others. An attention module offers it as
//   Tensor AttentionMap(const Tensor& x) const;  // x as for Forward -> f32 [B, H, W]
// and a model shows it through ForwardContext::TapAttention.
#ifndef TESSERA_ATTENTION_ATTENTION_MAP_H_
#define TESSERA_ATTENTION_ATTENTION_MAP_H_

#include <functional>

#include "tensor/tensor.h"

namespace tessera {

// The weights that a position gets from all queries, over heads: the gradient of the sum of
// outputs with respect to its value. `attend` is any differentiable attention that is linear in the
// values; qkv f32 [B, H, W, 3C] with the values last -> f32 [B, H, W].
Tensor AttentionReceived(const Tensor& qkv, const std::function<Tensor(const Tensor& qkv)>& attend);

// Scales every image of a map [B, H, W] to mean 1; one that is zero everywhere becomes 1.
void NormalizeAttentionMap(const Tensor& map);

}  // namespace tessera

#endif  // TESSERA_ATTENTION_ATTENTION_MAP_H_
