#include "tensor/ops/gelu/gelu.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const GeluArgs&)> gelu("gelu");
constinit KernelSlot<void(const GeluBackwardArgs&)> gelu_backward("gelu_backward");

namespace ops {

Tensor Gelu(const Tensor& x) {
  Tensor y = Tensor::Empty(x.shape(), x.dtype(), x.device());
  GeluTo(x, y);
  return y;
}

void GeluTo(const Tensor& x, const Tensor& y) {
  CHECK(IsFloat(x.dtype()) && y.dtype() == x.dtype() && y.numel() == x.numel())
      << "gelu: " << Describe(x) << " -> " << Describe(y);
  if (x.numel() == 0) return;
  gelu(x.device(), GeluArgs{.x = x.raw(), .y = y.raw(), .n = x.numel(), .dtype = x.dtype()});
}

void GeluBackward(const Tensor& dy, const Tensor& x, const GeluGradients& gradients) {
  const auto& [dx, dbias, y, accumulate_dx, accumulate_dbias] = gradients;
  CHECK(IsFloat(x.dtype()) && dy.dtype() == x.dtype() && dx.dtype() == x.dtype() &&
        dy.numel() == x.numel() && dx.numel() == x.numel() &&
        (!y.defined() || (y.dtype() == x.dtype() && y.numel() == x.numel())) &&
        (!dbias.defined() || (x.rank() >= 1 && dbias.numel() == x.dim(-1))))
      << "gelu_backward: dy " << Describe(dy) << ", x " << Describe(x) << " -> dx " << Describe(dx)
      << ", dbias " << Describe(dbias) << ", y " << Describe(y);
  if (x.numel() == 0) {
    if (dbias.defined() && !accumulate_dbias) dbias.FillZero();
    return;
  }
  const int64_t columns = x.rank() == 0 ? 1 : x.dim(-1);
  gelu_backward(x.device(),
                GeluBackwardArgs{.dy = dy.raw(),
                                 .x = x.raw(),
                                 .dx = dx.raw(),
                                 .y = y.defined() ? y.raw() : nullptr,
                                 .dbias = dbias.defined() ? dbias.data<float>() : nullptr,
                                 .rows = x.numel() / columns,
                                 .columns = columns,
                                 .accumulate_dx = accumulate_dx,
                                 .accumulate_dbias = accumulate_dbias,
                                 .dtype = x.dtype()});
}

}  // namespace ops
}  // namespace tessera
