#include "autograd/ops/layer_norm.h"

#include "autograd/tape.h"
#include "tensor/ops/layer_norm/layer_norm.h"

namespace tessera {

Tensor LayerNorm(const Tensor& x, const Tensor& weight, const Tensor& bias, float eps,
                 DType out_dtype) {
  auto [y, mean, rstd] = ops::LayerNorm(x, weight, bias, eps, out_dtype);
  Record("layer_norm", {&x, &weight, &bias}, {&y},
         [x = x.Detach(), weight = weight.Detach(), mean = mean, rstd = rstd](GradContext& g) {
           ops::LayerNormGradients to;
           if (g.wants(0)) {
             const GradDest dx = g.Dest(0);
             to.dx = dx.tensor;
             to.accumulate_dx = dx.accumulate;
           }
           if (g.wants(1)) {
             const GradDest dweight = g.Dest(1);
             to.dgamma = dweight.tensor;
             to.accumulate_dgamma = dweight.accumulate;
           }
           if (g.wants(2)) {
             const GradDest dbias = g.Dest(2);
             to.dbeta = dbias.tensor;
             to.accumulate_dbeta = dbias.accumulate;
           }
           ops::LayerNormBackward(g.out(), x, mean, rstd, weight, to);
         });
  return y;
}

}  // namespace tessera
