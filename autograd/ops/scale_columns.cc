#include "autograd/ops/scale_columns.h"

#include "autograd/tape.h"
#include "tensor/ops/scale_columns/scale_columns.h"

namespace tessera {

Tensor ScaleColumns(const Tensor& x, const Tensor& scale) {
  Tensor y = Tensor::Empty(x.shape(), x.dtype(), x.device());
  ops::ScaleColumnsTo(x, scale, y);
  Record("scale_columns", {&x, &scale}, {&y},
         [x = x.Detach(), scale = scale.Detach()](GradContext& g) {
           const Tensor dy = g.Take();
           const Tensor dx = dy.unique() ? dy : Tensor::Empty(x.shape(), x.dtype(), x.device());
           const GradDest dscale =
               g.wants(1) ? g.Dest(1)
                          : GradDest{Tensor::Empty(scale.shape(), DType::kF32, x.device()), false};
           ops::ScaleColumnsBackward(dy, x, scale, dx, dscale.tensor, dscale.accumulate);
           g.Add(0, dx);
         });
  return y;
}

}  // namespace tessera
