#include "autograd/ops/average_pool.h"

#include "autograd/tape.h"
#include "tensor/ops/average_pool/average_pool.h"

namespace tessera {

Tensor AveragePool(const Tensor& x, DType out_dtype) {
  Tensor y = ops::AveragePool(x, out_dtype);
  Record("average_pool", {&x}, {&y}, [](GradContext& g) {
    const GradDest dx = g.Dest(0);
    ops::AveragePoolBackward(g.out(), dx.tensor, dx.accumulate);
  });
  return y;
}

}  // namespace tessera
