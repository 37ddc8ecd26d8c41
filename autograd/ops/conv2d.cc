#include "autograd/ops/conv2d.h"

#include "autograd/tape.h"
#include "tensor/ops/cast/cast.h"
#include "tensor/ops/column_sum/column_sum.h"

namespace tessera {

Tensor Conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias,
              const Conv2dGeometry& geometry, DType out_dtype) {
  Tensor y = ops::Conv2d(x, weight, bias, geometry, out_dtype);
  Record("conv2d", {&x, &weight, &bias}, {&y},
         [x = x.Detach(), weight = weight.Detach(), geometry](GradContext& g) {
           Tensor dy = g.out();
           if (g.wants(2)) {
             const GradDest db = g.Dest(2);
             ops::ColumnSum(dy, db.tensor, db.accumulate);
           }
           dy = ops::Cast(dy, x.dtype());
           if (g.wants(1)) {
             const GradDest dw = g.Dest(1);
             ops::Conv2dGradWeight(dy, x, dw.tensor, geometry, dw.accumulate);
           }
           if (g.wants(0)) {
             g.Add(0, ops::Conv2dGradInput(dy, weight, x.shape(), x.dtype(), geometry));
           }
         });
  return y;
}

}  // namespace tessera
