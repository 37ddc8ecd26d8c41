// Sum over rows: the gradient of a bias.
#ifndef TESSERA_TENSOR_OPS_COLUMN_SUM_COLUMN_SUM_H_
#define TESSERA_TENSOR_OPS_COLUMN_SUM_COLUMN_SUM_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/tensor.h"

namespace tessera {

struct ColumnSumArgs {
  const void* x;    // [rows, columns]
  float* sum;       // [columns]
  float* partials;  // [NumChunks(rows, kColumnSumGrain), columns] of workspace
  int64_t rows;
  int64_t columns;
  bool accumulate;  // add to sum instead of overwriting it
  DType dtype;      // of x: f32 or bf16
};
inline constexpr int64_t kColumnSumGrain = 512;  // rows whose partial sum is formed in order
extern KernelSlot<void(const ColumnSumArgs&)> column_sum;

namespace ops {

// sum[c] = sum over rows of x[r, c], written to (or added to) sum: x [..., C] f32 or bf16, sum f32
// [C]. The same bits for any number of threads.
void ColumnSum(const Tensor& x, const Tensor& sum, bool accumulate);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_COLUMN_SUM_COLUMN_SUM_H_
