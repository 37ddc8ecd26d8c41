// Kernels of sums over rows: what runs on a device, on pointers and sizes. Formulas: column_sum.h.
#ifndef TESSERA_TENSOR_OPS_COLUMN_SUM_COLUMN_SUM_KERNEL_H_
#define TESSERA_TENSOR_OPS_COLUMN_SUM_COLUMN_SUM_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct ColumnSumArgs {
  const void* x;    // [rows, columns]
  float* sum;       // [columns]
  float* partials;  // [NumChunks(rows, kColumnSumGrain), columns] of workspace
  int64_t rows;
  int64_t columns;
  bool accumulate;  // add to sum instead of overwriting it
  DType dtype;      // of x: f32 or bf16

  KernelCost Cost() const { return KernelCost::OfStreams(rows * columns, {dtype}); }
};
inline constexpr int64_t kColumnSumGrain = 512;  // rows whose partial sum is formed in order
extern KernelSlot<void(const ColumnSumArgs&)> column_sum;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_COLUMN_SUM_COLUMN_SUM_KERNEL_H_
