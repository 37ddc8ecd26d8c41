#include "autograd/ops/mean_pool.h"

#include "autograd/tape.h"
#include "tensor/ops/mean_pool/mean_pool.h"

namespace tessera {

Tensor MeanPool(const Tensor& x) {
  Tensor y = ops::MeanPool(x);
  Record("mean_pool", {&x}, {&y}, [](GradContext& g) {
    const GradDest dx = g.Dest(0);
    ops::MeanPoolBackward(g.out(), dx.tensor, dx.accumulate);
  });
  return y;
}

}  // namespace tessera
