// Kernels of activation functions: what runs on a device, on pointers and sizes. Formulas:
// activation.h.
#ifndef TESSERA_TENSOR_OPS_ACTIVATION_ACTIVATION_KERNEL_H_
#define TESSERA_TENSOR_OPS_ACTIVATION_ACTIVATION_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/activation.h"

namespace tessera {

struct ActivationArgs {
  const void* x;  // [n]
  void* y;        // [n]; may be x
  int64_t n;
  Activation activation;
  DType dtype;  // f32 or bf16

  KernelCost Cost() const { return KernelCost::OfStreams(n, {dtype, dtype}); }
};
extern KernelSlot<void(const ActivationArgs&)> activation;

struct ActivationBackwardArgs {
  const void* dy;  // [rows, columns]
  const void* x;   // [rows, columns]
  void* dx;        // [rows, columns]; may be dy
  void* y;         // [rows, columns]: activation of x, may be x; or null
  float* dbias;    // [columns]: sum of dx over rows; or null
  int64_t rows;
  int64_t columns;
  bool accumulate_dx;
  bool accumulate_dbias;
  Activation activation;
  DType dtype;  // of dy, x, dx and y: f32 or bf16

  KernelCost Cost() const {
    const KernelCost gradient = KernelCost::OfStreams(rows * columns, {dtype, dtype, dtype});
    const KernelCost value = KernelCost::OfStreams(rows * columns, {dtype});
    return {0, gradient.bytes + (y == nullptr ? 0 : value.bytes)};
  }
};
extern KernelSlot<void(const ActivationBackwardArgs&)> activation_backward;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_ACTIVATION_ACTIVATION_KERNEL_H_
