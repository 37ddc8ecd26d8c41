// Convolutional positional encoding.
#ifndef TESSERA_LAYERS_POSITIONAL_CONV_H_
#define TESSERA_LAYERS_POSITIONAL_CONV_H_

#include "layers/module.h"

namespace tessera::layers {

// Depthwise convolution 3x3, stride 1, zero padding 1. Parameters: weight [dim, 1, 3, 3] and bias
// [dim], uniform within 1/3.
class DepthwiseConv3x3 : public Module {
 public:
  explicit DepthwiseConv3x3(int64_t dim);
  // x [B, H, W, dim] f32 -> conv(x), or x + conv(x) with `residual`.
  Tensor Forward(const Tensor& x, bool residual) const;

 private:
  Parameter& weight_;
  Parameter& bias_;
};

// x + act(dwconv(x)) (Chu et al., arXiv 2102.10882): gives tokens their position. Child: proj.
class PositionalConv : public Module {
 public:
  // With `act`, GELU on the convolution's output; without, nothing.
  PositionalConv(int64_t dim, bool act);
  Tensor Forward(const Tensor& x) const;  // [B, H, W, dim] f32 -> the same

 private:
  DepthwiseConv3x3& proj_;
  bool act_;
};

}  // namespace tessera::layers

#endif  // TESSERA_LAYERS_POSITIONAL_CONV_H_
