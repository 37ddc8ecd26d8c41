#include "autograd/ops/gelu.h"

#include "autograd/tape.h"
#include "tensor/ops/gelu/gelu.h"

namespace tessera {
Tensor Gelu(Tensor x) {
  const bool in_place = !NeedsGrad({&x}) && x.unique();
  Tensor y = in_place ? x.Detach() : Tensor::Empty(x.shape(), x.dtype(), x.device());
  ops::GeluTo(x, y);
  Record("gelu", {&x}, {&y}, [x = x.Detach()](GradContext& g) {
    const Tensor dy = g.Take();
    const Tensor dx = dy.unique() ? dy : Tensor::Empty(dy.shape(), dy.dtype(), dy.device());
    ops::GeluBackward(dy, x, {.dx = dx});
    g.Add(0, dx);
  });
  return y;
}

}  // namespace tessera
