#include "tensor/ops/mean_pool/mean_pool.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const MeanPoolArgs&)> mean_pool("mean_pool");
constinit KernelSlot<void(const MeanPoolBackwardArgs&)> mean_pool_backward("mean_pool_backward");

namespace ops {
namespace {

int64_t NumPixels(const Tensor& x) {
  int64_t pixels = 1;
  for (int axis = 1; axis < x.rank() - 1; ++axis) pixels *= x.dim(axis);
  return pixels;
}

}  // namespace

Tensor MeanPool(const Tensor& x) {
  CHECK(x.rank() >= 3 && IsFloat(x.dtype()) && NumPixels(x) > 0) << "mean_pool: " << Describe(x);
  Tensor y = Tensor::Empty({x.dim(0), x.dim(-1)}, DType::kF32, x.device());
  if (x.numel() == 0) return y;
  mean_pool(x.device(), MeanPoolArgs{.x = x.raw(),
                                     .y = y.data<float>(),
                                     .batch = x.dim(0),
                                     .pixels = NumPixels(x),
                                     .channels = x.dim(-1),
                                     .x_dtype = x.dtype()});
  return y;
}

void MeanPoolBackward(const Tensor& dy, const Tensor& dx, bool accumulate) {
  CHECK(dx.rank() >= 3 && IsFloat(dx.dtype()) && dy.numel() == dx.dim(0) * dx.dim(-1))
      << "mean_pool_backward: " << Describe(dy) << " -> " << Describe(dx);
  if (dx.numel() == 0) return;
  mean_pool_backward(dx.device(), MeanPoolBackwardArgs{.dy = dy.data<float>(),
                                                       .dx = dx.raw(),
                                                       .batch = dx.dim(0),
                                                       .pixels = NumPixels(dx),
                                                       .channels = dx.dim(-1),
                                                       .accumulate = accumulate,
                                                       .dx_dtype = dx.dtype()});
}

}  // namespace ops
}  // namespace tessera
