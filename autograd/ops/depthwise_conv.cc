#include "autograd/ops/depthwise_conv.h"

#include "autograd/tape.h"
#include "tensor/ops/depthwise_conv/depthwise_conv.h"

namespace tessera {

Tensor DepthwiseConv(const Tensor& x, const Tensor& weight, const Tensor& bias,
                     const Conv2dGeometry& geometry, bool residual) {
  Tensor y = ops::DepthwiseConv(x, weight, bias, geometry, residual);
  Record("depthwise_conv", {&x, &weight, &bias}, {&y},
         [x = x.Detach(), weight = weight.Detach(), geometry, residual](GradContext& g) {
           const Tensor dy = g.out();
           ops::DepthwiseConvGradients to;
           if (g.wants(1)) {
             const GradDest dweight = g.Dest(1);
             to.dweight = dweight.tensor;
             to.accumulate_dweight = dweight.accumulate;
           }
           if (g.wants(2)) {
             const GradDest dbias = g.Dest(2);
             to.dbias = dbias.tensor;
             to.accumulate_dbias = dbias.accumulate;
           }
           if (g.wants(1) || g.wants(2)) {
             ops::DepthwiseConvGradWeight(dy, x, weight.dim(2), geometry, to);
           }
           if (g.wants(0)) {
             const GradDest dx = g.Dest(0);
             ops::DepthwiseConvGradInput(dy, weight, geometry, residual, dx.tensor, dx.accumulate);
           }
         });
  return y;
}

}  // namespace tessera
