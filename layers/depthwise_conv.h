// Depthwise convolution as a layer.
#ifndef TESSERA_LAYERS_DEPTHWISE_CONV_H_
#define TESSERA_LAYERS_DEPTHWISE_CONV_H_

#include "autograd/ops/depthwise_conv.h"
#include "layers/module.h"

namespace tessera::layers {

// One k x k kernel per channel, k = 3, 5 or 7. Parameters: weight [dim, 1, k, k] and bias [dim];
// both uniform within 1 / k unless `options` say otherwise.
class DepthwiseConv : public Module {
 public:
  struct Options {
    bool bias = true;
    Init weight_init;
    Init bias_init;
  };
  DepthwiseConv(int64_t dim, int64_t kernel_size, bool has_bias = true);
  DepthwiseConv(int64_t dim, int64_t kernel_size, const Options& options);
  // x [B, H, W, dim] f32 or bf16 -> conv(x) [B, OH, OW, dim] of x's dtype; stride 1 or 2.
  Tensor Forward(const Tensor& x, const Conv2dGeometry& geometry) const;
  // x or x + conv(x), of x's shape: stride 1, padding k / 2.
  Tensor Forward(const Tensor& x) const;
  Tensor AddTo(const Tensor& x) const;
  // For ops that do the convolution themselves.
  const Tensor& weight() const { return weight_.value(); }
  const Tensor& bias() const;

 private:
  Parameter& weight_;
  Parameter* bias_ = nullptr;
};

}  // namespace tessera::layers

#endif  // TESSERA_LAYERS_DEPTHWISE_CONV_H_
