#include "layers/mlp.h"

namespace tessera::layers {

Mlp::Mlp(int64_t dim, int64_t hidden_dim)
    : fc1_(AddChild<Linear>("fc1", dim, hidden_dim)),
      fc2_(AddChild<Linear>("fc2", hidden_dim, dim)) {}

Tensor Mlp::Forward(const Tensor& x) const { return fc2_.Forward(fc1_.ForwardGelu(x), x.dtype()); }

}  // namespace tessera::layers
