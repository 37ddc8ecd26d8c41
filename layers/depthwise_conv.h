// Depthwise convolution as a layer.
#ifndef TESSERA_LAYERS_DEPTHWISE_CONV_H_
#define TESSERA_LAYERS_DEPTHWISE_CONV_H_

#include "autograd/ops/depthwise_conv.h"
#include "layers/module.h"

namespace tessera::layers {

// One k x k kernel per channel, k = 3, 5 or 7. Parameters: weight [dim, 1, k, k] and, with
// `has_bias`, bias [dim], uniform within 1 / k.
class DepthwiseConv : public Module {
 public:
  DepthwiseConv(int64_t dim, int64_t kernel_size, bool has_bias = true);
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
