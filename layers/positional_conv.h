// Convolutional positional encoding.
#ifndef TESSERA_LAYERS_POSITIONAL_CONV_H_
#define TESSERA_LAYERS_POSITIONAL_CONV_H_

#include "layers/depthwise_conv.h"

namespace tessera::layers {

// x + act(dwconv3x3(x)) (Chu et al., arXiv 2102.10882): gives tokens their position. Child: proj.
class PositionalConv : public Module {
 public:
  // With `act`, GELU on the convolution's output; without, nothing.
  PositionalConv(int64_t dim, bool act);
  Tensor Forward(const Tensor& x) const;  // [B, H, W, dim] f32 -> the same

 private:
  DepthwiseConv& proj_;
  bool act_;
};

}  // namespace tessera::layers

#endif  // TESSERA_LAYERS_POSITIONAL_CONV_H_
