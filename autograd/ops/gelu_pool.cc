#include "autograd/ops/gelu_pool.h"

#include "autograd/tape.h"
#include "tensor/ops/gelu_pool/gelu_pool.h"

namespace tessera {

Tensor GeluPool(const Tensor& x, int64_t pooled_height, int64_t pooled_width) {
  Tensor y = ops::GeluPool(x, pooled_height, pooled_width);
  Record("gelu_pool", {&x}, {&y},
         [x = x.Detach()](GradContext& g) { g.Add(0, ops::GeluPoolBackward(g.out(), x)); });
  return y;
}

}  // namespace tessera
