// Normalisation layers.
#ifndef TESSERA_LAYERS_NORM_H_
#define TESSERA_LAYERS_NORM_H_

#include "layers/module.h"

namespace tessera::layers {

// Layer norm over the last axis (Ba et al., arXiv 1607.06450). Parameters: weight [dim] (ones),
// bias [dim] (zeros).
class LayerNorm : public Module {
 public:
  explicit LayerNorm(int64_t dim, float eps = 1e-5f);
  // x [..., dim] f32 or bf16 -> the same shape, of `out_dtype`.
  Tensor Forward(const Tensor& x, DType out_dtype) const;

 private:
  Parameter& weight_;
  Parameter& bias_;
  float eps_;
};

}  // namespace tessera::layers

#endif  // TESSERA_LAYERS_NORM_H_
