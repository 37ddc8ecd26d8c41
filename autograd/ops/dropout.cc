#include "autograd/ops/dropout.h"

#include "autograd/tape.h"
#include "tensor/ops/dropout/dropout.h"

namespace tessera {

Tensor Dropout(const Tensor& x, double rate, const RandomKey& key) {
  if (rate == 0) return x;
  Tensor y = Tensor::Empty(x.shape(), x.dtype(), x.device());
  ops::DropoutTo(x, rate, key, y);
  Record("dropout", {&x}, {&y}, [rate, key](GradContext& g) {
    const Tensor dy = g.Take();
    const Tensor dx = dy.unique() ? dy : Tensor::Empty(dy.shape(), dy.dtype(), dy.device());
    ops::DropoutTo(dy, rate, key, dx);
    g.Add(0, dx);
  });
  return y;
}

}  // namespace tessera
