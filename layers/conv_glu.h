// The gated channel mixer of TransNeXt.
#ifndef TESSERA_LAYERS_CONV_GLU_H_
#define TESSERA_LAYERS_CONV_GLU_H_

#include "layers/linear.h"

namespace tessera::layers {

// Convolutional gated linear unit (Shi, arXiv 2311.17132): [a | g] = fc1(x), then fc2(GELU(dwconv
// 3x3(a)) g). Children: fc1 [2 hidden, dim], dwconv.dwconv [hidden, 1, 3, 3] (normal, standard
// deviation sqrt(2) / 3), fc2 [dim, hidden].
class ConvGlu : public Module {
 public:
  ConvGlu(int64_t dim, int64_t hidden_dim);
  // x [B, H, W, dim] f32 or bf16 -> the same shape and dtype.
  Tensor Forward(const Tensor& x) const;

 private:
  class Convolution;

  Linear& fc1_;
  Convolution& dwconv_;
  Linear& fc2_;
};

}  // namespace tessera::layers

#endif  // TESSERA_LAYERS_CONV_GLU_H_
