#include "autograd/ops/gelu.h"

#include <utility>

#include "autograd/tape.h"
#include "tensor/ops/gelu/gelu.h"
#include "tensor/ops/matmul/matmul.h"

namespace tessera {
namespace {

// dy itself if nothing else holds its memory, else new memory of its shape.
Tensor Overwritable(const Tensor& dy) {
  return dy.unique() ? dy : Tensor::Empty(dy.shape(), dy.dtype(), dy.device());
}

}  // namespace

Tensor Gelu(Tensor x) {
  const bool in_place = !NeedsGrad({&x}) && x.unique();
  Tensor y = in_place ? x.Detach() : Tensor::Empty(x.shape(), x.dtype(), x.device());
  ops::GeluTo(x, y);
  Record("gelu", {&x}, {&y}, [x = x.Detach()](GradContext& g) {
    const Tensor dy = g.Take();
    const Tensor dx = Overwritable(dy);
    ops::GeluBackward(dy, x, {.dx = dx});
    g.Add(0, dx);
  });
  return y;
}

Tensor LinearGelu(const Tensor& x, const Tensor& w, const Tensor& bias) {
  const Tensor hidden = ops::Linear(x, w, bias, x.dtype());
  if (!NeedsGrad({&x, &w, &bias})) {
    ops::GeluTo(hidden, hidden);
    return hidden;
  }
  Tensor y = ops::Gelu(hidden);
  Record("linear_gelu", {&x, &w, &bias}, {&y},
         [x = x.Detach(), w = w.Detach(), hidden](GradContext& g) {
           const Tensor dy = g.Take();
           ops::GeluGradients to{.dx = Overwritable(dy)};
           if (g.wants(2)) {
             const GradDest dbias = g.Dest(2);
             to.dbias = dbias.tensor;
             to.accumulate_dbias = dbias.accumulate;
           }
           ops::GeluBackward(dy, hidden, to);
           if (g.wants(1)) {
             const GradDest dw = g.Dest(1);
             ops::LinearGradWeight(to.dx, x, dw.tensor, dw.accumulate);
           }
           if (g.wants(0)) {
             const GradDest dx = g.Dest(0);
             ops::LinearGradInput(to.dx, w, dx.tensor, dx.accumulate);
           }
         });
  return y;
}

}  // namespace tessera
