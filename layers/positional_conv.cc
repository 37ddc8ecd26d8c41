#include "layers/positional_conv.h"

#include "autograd/ops/activation.h"
#include "autograd/ops/residual.h"

namespace tessera::layers {

PositionalConv::PositionalConv(int64_t dim, bool act)
    : proj_(AddChild<DepthwiseConv>("proj", dim, 3)), act_(act) {}

Tensor PositionalConv::Forward(const Tensor& x) const {
  if (!act_) return proj_.AddTo(x);
  return AddResidual(x, Activate(proj_.Forward(x), Activation::kGelu), Tensor());
}

}  // namespace tessera::layers
