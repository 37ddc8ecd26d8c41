#include "layers/linear.h"

#include <cmath>

#include "autograd/ops/linear.h"

namespace tessera::layers {
namespace {

Conv2d::Options DefaultConvOptions(int64_t in_channels, int64_t kernel_size) {
  const Init init =
      Init::Uniform(1.0 / std::sqrt(static_cast<double>(in_channels * kernel_size * kernel_size)));
  return {.weight_init = init, .bias_init = init};
}

// For layers without a bias.
const Tensor& ValueOrNone(const Parameter* parameter) {
  static const Tensor none;
  return parameter == nullptr ? none : parameter->value();
}

}  // namespace

Linear::Linear(int64_t in_features, int64_t out_features, const Options& options)
    : weight_(AddParameter("weight",
                           options.pointwise ? Shape({out_features, in_features, 1, 1})
                                             : Shape({out_features, in_features}),
                           options.weight_init)) {
  if (options.bias) bias_ = &AddParameter("bias", {out_features}, options.bias_init);
}

Tensor Linear::Forward(const Tensor& x, DType out_dtype, DType backward_dtype) const {
  return tessera::Linear(x, weight(x.dtype()), bias(), out_dtype, weight(backward_dtype));
}

Tensor Linear::weight(DType dtype) const {
  return weight_.As(dtype).Reshape({weight_.shape()[0], weight_.shape()[1]});
}

const Tensor& Linear::bias() const { return ValueOrNone(bias_); }

Conv2d::Conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel_size)
    : Conv2d(in_channels, out_channels, kernel_size, DefaultConvOptions(in_channels, kernel_size)) {
}

Conv2d::Conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel_size,
               const Options& options)
    : weight_(AddParameter("weight", {out_channels, in_channels, kernel_size, kernel_size},
                           options.weight_init)) {
  if (options.bias) bias_ = &AddParameter("bias", {out_channels}, options.bias_init);
}

Tensor Conv2d::Forward(const Tensor& x, const Conv2dGeometry& geometry, DType out_dtype) const {
  return tessera::Conv2d(x, weight_.value(), ValueOrNone(bias_), geometry, out_dtype);
}

}  // namespace tessera::layers
