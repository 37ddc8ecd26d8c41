#include "layers/linear.h"

#include <cmath>

#include "autograd/ops/linear.h"

namespace tessera::layers {
namespace {

Init ConvInit(int64_t in_channels, int64_t kernel_size) {
  return Init::Uniform(1.0 /
                       std::sqrt(static_cast<double>(in_channels * kernel_size * kernel_size)));
}

}  // namespace

Linear::Linear(int64_t in_features, int64_t out_features, bool has_bias)
    : weight_(AddParameter("weight", {out_features, in_features}, Init::TruncatedNormal(0.02))) {
  if (has_bias) bias_ = &AddParameter("bias", {out_features}, Init::Zeros());
}

Tensor Linear::Forward(const Tensor& x, DType out_dtype, DType backward_dtype) const {
  return tessera::Linear(x, weight_.As(x.dtype()), bias(), out_dtype, weight_.As(backward_dtype));
}

const Tensor& Linear::bias() const {
  static const Tensor none;
  return bias_ == nullptr ? none : bias_->value();
}

Conv2d::Conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel_size)
    : weight_(AddParameter("weight", {out_channels, in_channels, kernel_size, kernel_size},
                           ConvInit(in_channels, kernel_size))),
      bias_(AddParameter("bias", {out_channels}, ConvInit(in_channels, kernel_size))) {}

Tensor Conv2d::Forward(const Tensor& x, const Conv2dGeometry& geometry, DType out_dtype) const {
  return tessera::Conv2d(x, weight_.value(), bias_.value(), geometry, out_dtype);
}

}  // namespace tessera::layers
