#include "layers/mlp.h"

#include "autograd/ops/mlp.h"

namespace tessera::layers {

Mlp::Mlp(int64_t dim, int64_t hidden_dim, const Options& options)
    : fc1_(AddChild<Linear>(
          "fc1", dim, hidden_dim,
          Linear::Options{.weight_init = options.weight_init, .bias_init = options.bias_init})),
      fc2_(AddChild<Linear>(
          "fc2", hidden_dim, dim,
          Linear::Options{.weight_init = options.weight_init, .bias_init = options.bias_init})),
      activation_(options.activation) {}

Tensor Mlp::Forward(const Tensor& x) const {
  const DType dtype = x.dtype();
  return tessera::Mlp(x, fc1_.weight(dtype), fc1_.bias(), fc2_.weight(dtype), fc2_.bias(),
                      activation_);
}

}  // namespace tessera::layers
