#include "tensor/ops/cast/cast.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const CastArgs&)> cast("cast");

namespace ops {

Tensor Cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  const Tensor y = Tensor::Empty(x.shape(), dtype, x.device());
  CastTo(x, y);
  return y;
}

void CastTo(const Tensor& x, const Tensor& y) {
  CHECK(x.numel() == y.numel() && IsFloat(x.dtype()) && IsFloat(y.dtype()))
      << "cast: " << Describe(x) << " to " << Describe(y);
  if (x.numel() == 0) return;
  cast(x.device(),
       CastArgs{
           .x = x.raw(), .y = y.raw(), .n = x.numel(), .x_dtype = x.dtype(), .y_dtype = y.dtype()});
}

}  // namespace ops
}  // namespace tessera
