// Kernels of the residual stream: what runs on a device, on pointers and sizes. Formulas:
// residual.h.
#ifndef TESSERA_TENSOR_OPS_RESIDUAL_RESIDUAL_KERNEL_H_
#define TESSERA_TENSOR_OPS_RESIDUAL_RESIDUAL_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct AddResidualArgs {
  const float* x;      // [batch, n]
  const void* r;       // [batch, n]
  const float* scale;  // [batch], or null for 1
  float* y;            // [batch, n]; may be x or r
  int64_t batch;
  int64_t n;      // elements per sample
  DType r_dtype;  // f32 or bf16

  KernelCost Cost() const {
    return KernelCost::OfStreams(batch * n, {DType::kF32, r_dtype, DType::kF32});
  }
};
extern KernelSlot<void(const AddResidualArgs&)> add_residual;

struct ScaleSamplesArgs {
  const float* x;      // [batch, n]
  const float* scale;  // [batch]
  void* y;             // [batch, n]; may be x
  int64_t batch;
  int64_t n;
  DType y_dtype;  // f32 or bf16

  KernelCost Cost() const { return KernelCost::OfStreams(batch * n, {DType::kF32, y_dtype}); }
};
extern KernelSlot<void(const ScaleSamplesArgs&)> scale_samples;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_RESIDUAL_RESIDUAL_KERNEL_H_
