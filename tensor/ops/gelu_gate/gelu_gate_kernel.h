// Kernels of the gated GELU: what runs on a device, on pointers and sizes. Formulas: gelu_gate.h.
#ifndef TESSERA_TENSOR_OPS_GELU_GATE_GELU_GATE_KERNEL_H_
#define TESSERA_TENSOR_OPS_GELU_GATE_GELU_GATE_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct GeluGateArgs {
  const void* x;     // [n]
  const void* gate;  // [n]
  void* y;           // [n]; may be x or gate
  int64_t n;
  DType dtype;  // f32 or bf16
};
extern KernelSlot<void(const GeluGateArgs&)> gelu_gate;

struct GeluGateBackwardArgs {
  void* dy_y;        // [n]: dy, replaced by y
  void* x_dx;        // [n]: x, replaced by its gradient
  void* gate_dgate;  // [n]: the gate, replaced by its gradient
  int64_t n;
  DType dtype;  // f32 or bf16
};
extern KernelSlot<void(const GeluGateBackwardArgs&)> gelu_gate_backward;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_GELU_GATE_GELU_GATE_KERNEL_H_
