// Kernels that multiply columns: what runs on a device, on pointers and sizes. Formulas:
// scale_columns.h.
#ifndef TESSERA_TENSOR_OPS_SCALE_COLUMNS_SCALE_COLUMNS_KERNEL_H_
#define TESSERA_TENSOR_OPS_SCALE_COLUMNS_SCALE_COLUMNS_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct ScaleColumnsArgs {
  const void* x;       // [rows, columns]
  const float* scale;  // [columns]
  void* y;             // [rows, columns]; may be x
  int64_t rows;
  int64_t columns;
  DType dtype;  // of x and y: f32 or bf16

  KernelCost Cost() const { return KernelCost::OfStreams(rows * columns, {dtype, dtype}); }
};
extern KernelSlot<void(const ScaleColumnsArgs&)> scale_columns;

struct ScaleColumnsBackwardArgs {
  const void* dy;      // [rows, columns]
  const void* x;       // [rows, columns]
  const float* scale;  // [columns]
  void* dx;            // [rows, columns]; may be dy
  float* dscale;       // [columns]
  float* partials;     // [NumChunks(rows, kScaleColumnsGrain), columns] of workspace
  int64_t rows;
  int64_t columns;
  bool accumulate;  // add to dscale instead of overwriting it
  DType dtype;      // of dy, x and dx: f32 or bf16

  KernelCost Cost() const { return KernelCost::OfStreams(rows * columns, {dtype, dtype, dtype}); }
};
inline constexpr int64_t kScaleColumnsGrain = 512;  // rows whose partial sum is formed in order
extern KernelSlot<void(const ScaleColumnsBackwardArgs&)> scale_columns_backward;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_SCALE_COLUMNS_SCALE_COLUMNS_KERNEL_H_
