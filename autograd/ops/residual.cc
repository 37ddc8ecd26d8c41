#include "autograd/ops/residual.h"

#include "autograd/tape.h"
#include "tensor/ops/residual/residual.h"

namespace tessera {

Tensor AddResidual(const Tensor& x, Tensor r, const Tensor& scale) {
  const bool in_place = r.dtype() == DType::kF32 && r.unique();
  Tensor y =
      in_place ? r.Reshape(x.shape()).Detach() : Tensor::Empty(x.shape(), DType::kF32, x.device());
  ops::AddResidualTo(x, r, scale, y);
  Record("add_residual", {&x, &r}, {&y},
         [scale = scale.Detach(), r_dtype = r.dtype()](GradContext& g) {
           const Tensor dy = g.out();
           if (g.wants(1)) g.Add(1, ops::ScaleSamples(dy, scale, r_dtype));
           g.Add(0, dy);
         });
  return y;
}

}  // namespace tessera
