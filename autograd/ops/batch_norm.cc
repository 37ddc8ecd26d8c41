#include "autograd/ops/batch_norm.h"

#include "autograd/tape.h"
#include "tensor/ops/describe.h"

namespace tessera {

Tensor BatchNorm(const Tensor& x, const Tensor& weight, const Tensor& bias,
                 const ops::RunningStatistics& running, const BatchNormOptions& options,
                 DType out_dtype) {
  const bool of_batch = options.batch_statistics;
  const ops::BatchNormTransform transform = {
      .statistics = of_batch ? ops::BatchNormStatisticsOf(ops::BatchNormSums(x), NumRows(x),
                                                          options.eps, running, options.momentum)
                             : ops::BatchNormRunningStatistics(running, options.eps),
      .gamma = weight.Detach(),
      .beta = bias.Detach(),
      .activation = options.activation};
  Tensor y = ops::BatchNorm(x, transform, out_dtype);
  Record("batch_norm", {&x, &weight, &bias}, {&y},
         [x = x.Detach(), transform, of_batch](GradContext& g) {
           const Tensor dy = g.out();
           Tensor sums;
           if (of_batch || g.wants(1) || g.wants(2)) {
             sums = ops::BatchNormGradSums(dy, x, transform);
             g.Add(2, sums.Slice(0, 1));
             g.Add(1, sums.Slice(1, 2));
           }
           if (!g.wants(0)) return;
           const GradDest dx = g.Dest(0);
           ops::BatchNormGradInput(dy, x, transform, of_batch ? sums : Tensor(), NumRows(x),
                                   dx.tensor, dx.accumulate);
         });
  return y;
}

}  // namespace tessera
