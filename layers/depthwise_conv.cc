#include "layers/depthwise_conv.h"

namespace tessera::layers {
namespace {

Init KernelInit(int64_t kernel_size) {
  return Init::Uniform(1.0 / static_cast<double>(kernel_size));
}

}  // namespace

DepthwiseConv::DepthwiseConv(int64_t dim, int64_t kernel_size, bool has_bias)
    : DepthwiseConv(dim, kernel_size,
                    Options{has_bias, KernelInit(kernel_size), KernelInit(kernel_size)}) {}

DepthwiseConv::DepthwiseConv(int64_t dim, int64_t kernel_size, const Options& options)
    : weight_(AddParameter("weight", {dim, 1, kernel_size, kernel_size}, options.weight_init)) {
  if (options.bias) bias_ = &AddParameter("bias", {dim}, options.bias_init);
}

Tensor DepthwiseConv::Forward(const Tensor& x, const Conv2dGeometry& geometry) const {
  return tessera::DepthwiseConv(x, weight(), bias(), geometry, /*residual=*/false);
}

Tensor DepthwiseConv::Forward(const Tensor& x) const {
  return Forward(x, Conv2dGeometry::Centred(weight_.shape()[2]));
}

Tensor DepthwiseConv::AddTo(const Tensor& x) const {
  return tessera::DepthwiseConv(x, weight(), bias(), Conv2dGeometry::Centred(weight_.shape()[2]),
                                /*residual=*/true);
}

const Tensor& DepthwiseConv::bias() const {
  static const Tensor none;
  return bias_ == nullptr ? none : bias_->value();
}

}  // namespace tessera::layers
