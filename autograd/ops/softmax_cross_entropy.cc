#include "autograd/ops/softmax_cross_entropy.h"

#include "autograd/tape.h"
#include "tensor/ops/residual/residual.h"
#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy.h"

namespace tessera {

Tensor SoftmaxCrossEntropy(const Tensor& logits, const Tensor& targets) {
  ops::SoftmaxCrossEntropyResult result =
      ops::SoftmaxCrossEntropy(logits, targets, NeedsGrad({&logits}));
  Record("softmax_cross_entropy", {&logits}, {&result.loss},
         [dlogits = result.dlogits](GradContext& g) {
           const Tensor as_one_sample = dlogits.Reshape({1, dlogits.numel()});
           const Tensor scaled =
               ops::ScaleSamples(as_one_sample, g.out().Reshape({1}), DType::kF32);
           g.Add(0, scaled.Reshape(dlogits.shape()));
         });
  return result.loss;
}

}  // namespace tessera
