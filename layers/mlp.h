// The two-layer perceptron of a transformer block.
#ifndef TESSERA_LAYERS_MLP_H_
#define TESSERA_LAYERS_MLP_H_

#include "layers/linear.h"

namespace tessera::layers {

// fc2(GELU(fc1(x))), exact GELU. Children: fc1 [hidden, dim], fc2 [dim, hidden].
class Mlp : public Module {
 public:
  Mlp(int64_t dim, int64_t hidden_dim);
  // x [..., dim] f32 or bf16 -> the same shape and dtype.
  Tensor Forward(const Tensor& x) const;

 private:
  Linear& fc1_;
  Linear& fc2_;
};

}  // namespace tessera::layers

#endif  // TESSERA_LAYERS_MLP_H_
