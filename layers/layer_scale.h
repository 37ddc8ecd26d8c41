// Layer scale.
#ifndef TESSERA_LAYERS_LAYER_SCALE_H_
#define TESSERA_LAYERS_LAYER_SCALE_H_

#include "layers/module.h"

namespace tessera::layers {

// A learned factor for each channel of a residual branch, small at the start (Touvron et al., arXiv
// 2103.17239). Parameter: gamma [dim], all `init_value`.
class LayerScale : public Module {
 public:
  LayerScale(int64_t dim, double init_value);
  // x [..., dim] f32 or bf16 -> the same shape and dtype.
  Tensor Forward(const Tensor& x) const;

 private:
  Parameter& gamma_;
};

}  // namespace tessera::layers

#endif  // TESSERA_LAYERS_LAYER_SCALE_H_
