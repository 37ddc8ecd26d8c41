// y += x.
#ifndef TESSERA_TENSOR_OPS_ADD_ADD_H_
#define TESSERA_TENSOR_OPS_ADD_ADD_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/tensor.h"

namespace tessera {

struct AddInPlaceArgs {
  void* y;        // [n]
  const void* x;  // [n]
  int64_t n;
  DType y_dtype;  // f32 or bf16
  DType x_dtype;  // f32 or bf16
};
extern KernelSlot<void(const AddInPlaceArgs&)> add_in_place;

namespace ops {

// Adds x to y element by element; both f32 or bf16, as many elements. The sum is formed in f32.
void AddInPlace(const Tensor& y, const Tensor& x);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_ADD_ADD_H_
