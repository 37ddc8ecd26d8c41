// The largest elements of each row, for evaluation and prediction.
#ifndef TESSERA_TENSOR_OPS_TOP_K_TOP_K_H_
#define TESSERA_TENSOR_OPS_TOP_K_TOP_K_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/tensor.h"

namespace tessera {

struct TopKArgs {
  const void* x;     // [rows, columns]
  float* values;     // [rows, k]
  int32_t* indices;  // [rows, k]
  int64_t rows, columns, k;
  DType x_dtype;  // f32 or bf16
};
extern KernelSlot<void(const TopKArgs&)> top_k;

namespace ops {

struct TopKResult {
  Tensor values;   // f32 [..., k], descending
  Tensor indices;  // i32 [..., k], positions on the last axis
};

// The k largest elements of each row of x [..., C], f32 or bf16, 1 <= k <= C. Of equal elements the
// first comes first; a NaN counts as smaller than any number.
TopKResult TopK(const Tensor& x, int64_t k);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_TOP_K_TOP_K_H_
