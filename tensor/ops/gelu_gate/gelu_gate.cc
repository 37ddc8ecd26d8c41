#include "tensor/ops/gelu_gate/gelu_gate.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const GeluGateArgs&)> gelu_gate("gelu_gate");
constinit KernelSlot<void(const GeluGateBackwardArgs&)> gelu_gate_backward("gelu_gate_backward");

namespace ops {
namespace {

void CheckAlike(const Tensor& x, const Tensor& gate, const Tensor& y) {
  CHECK(IsFloat(x.dtype()) && gate.dtype() == x.dtype() && y.dtype() == x.dtype() &&
        gate.numel() == x.numel() && y.numel() == x.numel())
      << "gelu_gate: x " << Describe(x) << ", gate " << Describe(gate) << ", y " << Describe(y);
}

}  // namespace

void GeluGateTo(const Tensor& x, const Tensor& gate, const Tensor& y) {
  CheckAlike(x, gate, y);
  if (x.numel() == 0) return;
  gelu_gate(
      x.device(),
      GeluGateArgs{
          .x = x.raw(), .gate = gate.raw(), .y = y.raw(), .n = x.numel(), .dtype = x.dtype()});
}

void GeluGateBackwardInPlace(const Tensor& dy, const Tensor& x, const Tensor& gate) {
  CheckAlike(x, gate, dy);
  if (x.numel() == 0) return;
  gelu_gate_backward(x.device(), GeluGateBackwardArgs{.dy_y = dy.raw(),
                                                      .x_dx = x.raw(),
                                                      .gate_dgate = gate.raw(),
                                                      .n = x.numel(),
                                                      .dtype = x.dtype()});
}

}  // namespace ops
}  // namespace tessera
