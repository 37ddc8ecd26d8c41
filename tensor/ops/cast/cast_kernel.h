// Kernels of conversion between f32 and bf16: what runs on a device, on pointers and sizes.
// Formulas: cast.h.
#ifndef TESSERA_TENSOR_OPS_CAST_CAST_KERNEL_H_
#define TESSERA_TENSOR_OPS_CAST_CAST_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct CastArgs {
  const void* x;  // [n]
  void* y;        // [n]
  int64_t n;
  DType x_dtype;  // f32 or bf16
  DType y_dtype;  // f32 or bf16

  KernelCost Cost() const { return KernelCost::OfStreams(n, {x_dtype, y_dtype}); }
};
extern KernelSlot<void(const CastArgs&)> cast;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_CAST_CAST_KERNEL_H_
