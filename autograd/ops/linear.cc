#include "autograd/ops/linear.h"

#include "autograd/tape.h"
#include "tensor/ops/cast/cast.h"
#include "tensor/ops/column_sum/column_sum.h"
#include "tensor/ops/matmul/matmul.h"

namespace tessera {

Tensor Linear(const Tensor& x, const Tensor& w, const Tensor& bias, DType out_dtype,
              const Tensor& backward_w) {
  Tensor y = ops::Linear(x, w, bias, out_dtype);
  if (!NeedsGrad({&x, &w, &bias})) return y;
  const Tensor kept = ops::Cast(x, backward_w.dtype());
  Record("linear", {&x, &w, &bias}, {&y},
         [x = kept.Detach(), w = backward_w.Detach()](GradContext& g) {
           Tensor dy = g.out();
           if (g.wants(2)) {
             const GradDest db = g.Dest(2);
             ops::ColumnSum(dy, db.tensor, db.accumulate);
           }
           // Products take operands of one dtype; an f32 output of bf16 operands has an f32
           // gradient.
           dy = ops::Cast(dy, x.dtype());
           if (g.wants(1)) {
             const GradDest dw = g.Dest(1);
             ops::LinearGradWeight(dy, x, dw.tensor, dw.accumulate);
           }
           if (g.wants(0)) {
             const GradDest dx = g.Dest(0);
             ops::LinearGradInput(dy, w, dx.tensor, dx.accumulate);
           }
         });
  return y;
}

}  // namespace tessera
