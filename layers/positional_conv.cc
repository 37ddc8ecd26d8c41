#include "layers/positional_conv.h"

#include "autograd/ops/depthwise_conv.h"
#include "autograd/ops/gelu.h"
#include "autograd/ops/residual.h"

namespace tessera::layers {

DepthwiseConv3x3::DepthwiseConv3x3(int64_t dim)
    : weight_(AddParameter("weight", {dim, 1, 3, 3}, Init::Uniform(1.0 / 3.0))),
      bias_(AddParameter("bias", {dim}, Init::Uniform(1.0 / 3.0))) {}

Tensor DepthwiseConv3x3::Forward(const Tensor& x, bool residual) const {
  return tessera::DepthwiseConv(x, weight_.value(), bias_.value(), residual);
}

PositionalConv::PositionalConv(int64_t dim, bool act)
    : proj_(AddChild<DepthwiseConv3x3>("proj", dim)), act_(act) {}

Tensor PositionalConv::Forward(const Tensor& x) const {
  if (!act_) return proj_.Forward(x, /*residual=*/true);
  return AddResidual(x, Gelu(proj_.Forward(x, /*residual=*/false)), Tensor());
}

}  // namespace tessera::layers
