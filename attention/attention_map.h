// Where attention looks, as a picture: a number for each position of a map, of mean 1, that says
// how much it counts for the others. An attention module offers it as
//   Tensor AttentionMap(const Tensor& x) const;  // x as for Forward -> f32 [B, H, W]
// and a model shows it through ForwardContext::TapAttention.
#ifndef TESSERA_ATTENTION_ATTENTION_MAP_H_
#define TESSERA_ATTENTION_ATTENTION_MAP_H_

#include <functional>

#include "tensor/tensor.h"

namespace tessera {

// The weights that values get from all queries, over heads: the gradient of the sum of outputs with
// respect to the values. `attend` is any differentiable attention that is linear in them. Channels
// of `in` are runs of `parts` * `width`, of which the last `width` are values: q, k and v of C
// channels each are 3 parts of width C. in f32 [..., channels] -> f32 [...].
Tensor AttentionReceived(const Tensor& in, int64_t parts, int64_t width,
                         const std::function<Tensor(const Tensor& in)>& attend);

// Scales every image of a map [B, H, W] to mean 1, in place, and returns it; one that is zero
// everywhere becomes 1.
Tensor NormalizeAttentionMap(Tensor map);

}  // namespace tessera

#endif  // TESSERA_ATTENTION_ATTENTION_MAP_H_
