#include "autograd/ops/mlp.h"

#include "autograd/tape.h"
#include "tensor/ops/activation/activation.h"
#include "tensor/ops/column_sum/column_sum.h"
#include "tensor/ops/matmul/matmul.h"

namespace tessera {
namespace {

// Inputs of the node, in order.
enum Input { kX, kW1, kB1, kW2, kB2 };

// Gradient of x w^T with respect to w.
void WeightGradient(const GradContext& g, Input i, const Tensor& dy, const Tensor& x) {
  if (!g.wants(i)) return;
  const GradDest dw = g.Dest(i);
  ops::LinearGradWeight(dy, x, dw.tensor, dw.accumulate);
}

}  // namespace

Tensor Mlp(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2,
           Activation activation) {
  const Tensor hidden = ops::Linear(x, w1, b1, x.dtype());
  const bool needs_grad = NeedsGrad({&x, &w1, &b1, &w2, &b2});
  const Tensor activated =
      needs_grad ? Tensor::Empty(hidden.shape(), hidden.dtype(), hidden.device()) : hidden;
  ops::ActivateTo(hidden, activation, activated);
  Tensor y = ops::Linear(activated, w2, b2, x.dtype());
  Record("mlp", {&x, &w1, &b1, &w2, &b2}, {&y},
         [x = x.Detach(), w1 = w1.Detach(), w2 = w2.Detach(), hidden, activation](GradContext& g) {
           const Tensor dy = g.out();
           if (g.wants(kB2)) {
             const GradDest db2 = g.Dest(kB2);
             ops::ColumnSum(dy, db2.tensor, db2.accumulate);
           }
           // First the gradient of `activated`, then, in its place, that of `hidden`, which becomes
           // `activated` again.
           const Tensor dhidden = Tensor::Empty(hidden.shape(), hidden.dtype(), hidden.device());
           ops::LinearGradInput(dy, w2, dhidden, /*accumulate=*/false);
           ops::ActivationGradients to{.dx = dhidden, .y = hidden};
           if (g.wants(kB1)) {
             const GradDest db1 = g.Dest(kB1);
             to.dbias = db1.tensor;
             to.accumulate_dbias = db1.accumulate;
           }
           ops::ActivateBackward(dhidden, hidden, activation, to);
           WeightGradient(g, kW2, dy, hidden);
           WeightGradient(g, kW1, dhidden, x);
           if (g.wants(kX)) {
             const GradDest dx = g.Dest(kX);
             ops::LinearGradInput(dhidden, w1, dx.tensor, dx.accumulate);
           }
         });
  return y;
}

}  // namespace tessera
