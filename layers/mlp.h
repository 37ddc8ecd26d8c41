// The two-layer perceptron of a transformer block.
#ifndef TESSERA_LAYERS_MLP_H_
#define TESSERA_LAYERS_MLP_H_

#include "layers/linear.h"
#include "tensor/activation.h"

namespace tessera::layers {

// fc2(activation(fc1(x))). Children: fc1 [hidden, dim], fc2 [dim, hidden].
class Mlp : public Module {
 public:
  struct Options {
    Activation activation = Activation::kGelu;
    // Of both layers.
    Init weight_init = Init::TruncatedNormal(0.02);
    Init bias_init = Init::Zeros();
  };
  Mlp(int64_t dim, int64_t hidden_dim) : Mlp(dim, hidden_dim, Options()) {}
  Mlp(int64_t dim, int64_t hidden_dim, const Options& options);
  // x [..., dim] f32 or bf16 -> the same shape and dtype.
  Tensor Forward(const Tensor& x) const;

 private:
  Linear& fc1_;
  Linear& fc2_;
  Activation activation_;
};

}  // namespace tessera::layers

#endif  // TESSERA_LAYERS_MLP_H_
