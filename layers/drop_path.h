// Stochastic depth.
#ifndef TESSERA_LAYERS_DROP_PATH_H_
#define TESSERA_LAYERS_DROP_PATH_H_

#include "layers/forward_context.h"

namespace tessera::layers {

// Stochastic depth (Huang et al., arXiv 1603.09382): in training, drops a residual branch for a
// random part of the samples and divides it by the keep probability for the others.
class DropPath : public Module {
 public:
  explicit DropPath(double rate) : rate_(rate) {}
  // x + branch, the branch dropped per sample: x [B, ...] f32, branch of x's shape, f32 or bf16.
  // The result takes the memory of an f32 branch that is passed by std::move.
  Tensor AddTo(const Tensor& x, Tensor branch, const ForwardContext& context) const;

 private:
  double rate_;
};

}  // namespace tessera::layers

#endif  // TESSERA_LAYERS_DROP_PATH_H_
