#include "tensor/ops/activation/activation.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const ActivationArgs&)> activation("activation");
constinit KernelSlot<void(const ActivationBackwardArgs&)> activation_backward(
    "activation_backward");

namespace ops {

void ActivateTo(const Tensor& x, Activation activation, const Tensor& y) {
  CHECK(IsFloat(x.dtype()) && y.dtype() == x.dtype() && y.numel() == x.numel())
      << "activation: " << Describe(x) << " -> " << Describe(y);
  if (x.numel() == 0) return;
  tessera::activation(x.device(),
                      ActivationArgs{x.raw(), y.raw(), x.numel(), activation, x.dtype()});
}

void ActivateBackward(const Tensor& dy, const Tensor& x, Activation activation,
                      const ActivationGradients& gradients) {
  const auto& [dx, dbias, y, accumulate_dx, accumulate_dbias] = gradients;
  CHECK(IsFloat(x.dtype()) && dy.dtype() == x.dtype() && dx.dtype() == x.dtype() &&
        dy.numel() == x.numel() && dx.numel() == x.numel() &&
        (!y.defined() || (y.dtype() == x.dtype() && y.numel() == x.numel())) &&
        (!dbias.defined() || (x.rank() >= 1 && dbias.numel() == x.dim(-1))))
      << "activation_backward: dy " << Describe(dy) << ", x " << Describe(x) << " -> dx "
      << Describe(dx) << ", dbias " << Describe(dbias) << ", y " << Describe(y);
  if (x.numel() == 0) {
    if (dbias.defined() && !accumulate_dbias) dbias.FillZero();
    return;
  }
  const int64_t columns = x.rank() == 0 ? 1 : x.dim(-1);
  activation_backward(
      x.device(), ActivationBackwardArgs{.dy = dy.raw(),
                                         .x = x.raw(),
                                         .dx = dx.raw(),
                                         .y = y.defined() ? y.raw() : nullptr,
                                         .dbias = dbias.defined() ? dbias.data<float>() : nullptr,
                                         .rows = x.numel() / columns,
                                         .columns = columns,
                                         .accumulate_dx = accumulate_dx,
                                         .accumulate_dbias = accumulate_dbias,
                                         .activation = activation,
                                         .dtype = x.dtype()});
}

}  // namespace ops
}  // namespace tessera
