#include "autograd/ops/softmax_cross_entropy.h"

#include "autograd/tape.h"
#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy.h"

namespace tessera {

Tensor SoftmaxCrossEntropy(const Tensor& logits, const Tensor& targets) {
  ops::SoftmaxCrossEntropyResult result =
      ops::SoftmaxCrossEntropy(logits, targets, NeedsGrad({&logits}));
  Record("softmax_cross_entropy", {&logits}, {&result.loss},
         [dlogits = result.dlogits](GradContext& g) {
           const float dloss = *g.out().data<float>();
           float* d = dlogits.data<float>();
           for (int64_t i = 0; i < dlogits.numel(); ++i) d[i] *= dloss;
           g.Add(0, dlogits);
         });
  return result.loss;
}

}  // namespace tessera
