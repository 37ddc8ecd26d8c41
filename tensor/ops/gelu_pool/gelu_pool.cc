#include "tensor/ops/gelu_pool/gelu_pool.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const GeluPoolArgs&)> gelu_pool("gelu_pool");
constinit KernelSlot<void(const GeluPoolBackwardArgs&)> gelu_pool_backward("gelu_pool_backward");

namespace ops {

Tensor GeluPool(const Tensor& x, int64_t pooled_height, int64_t pooled_width) {
  CHECK(x.rank() == 4 && IsFloat(x.dtype()) && x.dim(1) * x.dim(2) > 0 && pooled_height > 0 &&
        pooled_width > 0)
      << "gelu_pool: " << Describe(x) << " to " << pooled_height << " x " << pooled_width;
  Tensor y =
      Tensor::Empty({x.dim(0), pooled_height, pooled_width, x.dim(3)}, DType::kF32, x.device());
  if (y.numel() == 0) return y;
  gelu_pool(x.device(), GeluPoolArgs{.x = x.raw(),
                                     .y = y.data<float>(),
                                     .batch = x.dim(0),
                                     .rows = {x.dim(1), pooled_height},
                                     .columns = {x.dim(2), pooled_width},
                                     .channels = x.dim(3),
                                     .x_dtype = x.dtype()});
  return y;
}

Tensor GeluPoolBackward(const Tensor& dy, const Tensor& x) {
  CHECK(x.rank() == 4 && dy.rank() == 4 && IsFloat(x.dtype()) && dy.dim(0) == x.dim(0) &&
        dy.dim(3) == x.dim(3))
      << "gelu_pool_backward: dy " << Describe(dy) << ", x " << Describe(x);
  Tensor dx = Tensor::Empty(x.shape(), x.dtype(), x.device());
  if (x.numel() == 0) return dx;
  gelu_pool_backward(x.device(), GeluPoolBackwardArgs{.dy = dy.data<float>(),
                                                      .x = x.raw(),
                                                      .dx = dx.raw(),
                                                      .batch = x.dim(0),
                                                      .rows = {x.dim(1), dy.dim(1)},
                                                      .columns = {x.dim(2), dy.dim(2)},
                                                      .channels = x.dim(3),
                                                      .x_dtype = x.dtype()});
  return dx;
}

}  // namespace ops
}  // namespace tessera
