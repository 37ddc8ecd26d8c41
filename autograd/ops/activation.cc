#include "autograd/ops/activation.h"

#include "autograd/tape.h"
#include "tensor/ops/activation/activation.h"

namespace tessera {

Tensor Activate(Tensor x, Activation activation) {
  const bool in_place = !NeedsGrad({&x}) && x.unique();
  Tensor y = in_place ? x.Detach() : Tensor::Empty(x.shape(), x.dtype(), x.device());
  ops::ActivateTo(x, activation, y);
  Record("activation", {&x}, {&y}, [x = x.Detach(), activation](GradContext& g) {
    const Tensor dy = g.Take();
    const Tensor dx = dy.unique() ? dy : Tensor::Empty(dy.shape(), dy.dtype(), dy.device());
    ops::ActivateBackward(dy, x, activation, {.dx = dx});
    g.Add(0, dx);
  });
  return y;
}

}  // namespace tessera
