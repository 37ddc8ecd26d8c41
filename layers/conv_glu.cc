#include "layers/conv_glu.h"

#include <numbers>

#include "autograd/ops/conv_glu.h"

namespace tessera::layers {

// Parameters alone; published checkpoints have a module around the convolution.
class ConvGlu::Convolution : public Module {
 public:
  explicit Convolution(int64_t dim)
      : weight_(AddParameter("dwconv.weight", {dim, 1, 3, 3},
                             Init::TruncatedNormal(std::numbers::sqrt2 / 3.0))),
        bias_(AddParameter("dwconv.bias", {dim}, Init::Zeros())) {}
  DepthwiseWeights weights() const { return {weight_.value(), bias_.value()}; }

 private:
  Parameter& weight_;
  Parameter& bias_;
};

ConvGlu::ConvGlu(int64_t dim, int64_t hidden_dim)
    : fc1_(AddChild<Linear>("fc1", dim, 2 * hidden_dim)),
      dwconv_(AddChild<Convolution>("dwconv", hidden_dim)),
      fc2_(AddChild<Linear>("fc2", hidden_dim, dim)) {}

Tensor ConvGlu::Forward(const Tensor& x) const {
  const DType dtype = x.dtype();
  return tessera::ConvGlu(x, fc1_.weight(dtype), fc1_.bias(), dwconv_.weights(), fc2_.weight(dtype),
                          fc2_.bias());
}

}  // namespace tessera::layers
