// Kernels of addition in place: what runs on a device, on pointers and sizes. Formulas: add.h.
#ifndef TESSERA_TENSOR_OPS_ADD_ADD_KERNEL_H_
#define TESSERA_TENSOR_OPS_ADD_ADD_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct AddInPlaceArgs {
  void* y;        // [n]
  const void* x;  // [n]
  int64_t n;
  DType y_dtype;  // f32 or bf16
  DType x_dtype;  // f32 or bf16

  KernelCost Cost() const { return KernelCost::OfStreams(n, {y_dtype, x_dtype, y_dtype}); }
};
extern KernelSlot<void(const AddInPlaceArgs&)> add_in_place;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_ADD_ADD_KERNEL_H_
