#include "layers/norm.h"

#include "autograd/ops/layer_norm.h"

namespace tessera::layers {

LayerNorm::LayerNorm(int64_t dim, float eps)
    : weight_(AddParameter("weight", {dim}, Init::Ones())),
      bias_(AddParameter("bias", {dim}, Init::Zeros())),
      eps_(eps) {}

Tensor LayerNorm::Forward(const Tensor& x, DType out_dtype) const {
  return tessera::LayerNorm(x, weight_.value(), bias_.value(), eps_, out_dtype);
}

}  // namespace tessera::layers
