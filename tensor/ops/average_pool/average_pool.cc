#include "tensor/ops/average_pool/average_pool.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const AveragePoolArgs&)> average_pool("average_pool");
constinit KernelSlot<void(const AveragePoolBackwardArgs&)> average_pool_backward(
    "average_pool_backward");

namespace ops {
namespace {

Shape PooledShape(const Shape& x) { return {x[0], (x[1] + 1) / 2, (x[2] + 1) / 2, x[3]}; }

}  // namespace

Tensor AveragePool(const Tensor& x, DType out_dtype) {
  CHECK(x.rank() == 4 && IsFloat(x.dtype()) && IsFloat(out_dtype))
      << "average_pool: " << Describe(x) << " -> " << Name(out_dtype);
  Tensor y = Tensor::Empty(PooledShape(x.shape()), out_dtype, x.device());
  if (x.numel() == 0) return y;
  average_pool(x.device(), AveragePoolArgs{.x = x.raw(),
                                           .y = y.raw(),
                                           .batch = x.dim(0),
                                           .height = x.dim(1),
                                           .width = x.dim(2),
                                           .channels = x.dim(3),
                                           .x_dtype = x.dtype(),
                                           .y_dtype = out_dtype});
  return y;
}

void AveragePoolBackward(const Tensor& dy, const Tensor& dx, bool accumulate) {
  CHECK(dx.rank() == 4 && IsFloat(dy.dtype()) && IsFloat(dx.dtype()) &&
        dy.shape() == PooledShape(dx.shape()))
      << "average_pool_backward: " << Describe(dy) << " -> " << Describe(dx);
  if (dx.numel() == 0) return;
  average_pool_backward(dx.device(), AveragePoolBackwardArgs{.dy = dy.raw(),
                                                             .dx = dx.raw(),
                                                             .batch = dx.dim(0),
                                                             .height = dx.dim(1),
                                                             .width = dx.dim(2),
                                                             .channels = dx.dim(3),
                                                             .accumulate = accumulate,
                                                             .dy_dtype = dy.dtype(),
                                                             .dx_dtype = dx.dtype()});
}

}  // namespace ops
}  // namespace tessera
