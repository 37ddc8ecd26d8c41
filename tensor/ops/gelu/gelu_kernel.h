// Kernels of GELU: what runs on a device, on pointers and sizes. Formulas: gelu.h.
#ifndef TESSERA_TENSOR_OPS_GELU_GELU_KERNEL_H_
#define TESSERA_TENSOR_OPS_GELU_GELU_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct GeluArgs {
  const void* x;  // [n]
  void* y;        // [n]; may be x
  int64_t n;
  DType dtype;  // f32 or bf16
};
extern KernelSlot<void(const GeluArgs&)> gelu;

struct GeluBackwardArgs {
  const void* dy;  // [rows, columns]
  const void* x;   // [rows, columns]
  void* dx;        // [rows, columns]; may be dy
  void* y;         // [rows, columns]: GELU of x, may be x; or null
  float* dbias;    // [columns]: sum of dx over rows; or null
  int64_t rows;
  int64_t columns;
  bool accumulate_dx;
  bool accumulate_dbias;
  DType dtype;  // of dy, x, dx and y: f32 or bf16
};
extern KernelSlot<void(const GeluBackwardArgs&)> gelu_backward;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_GELU_GELU_KERNEL_H_
