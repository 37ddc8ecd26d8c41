// Kernels of the sum of squares: what runs on a device, on pointers and sizes. Formulas:
// squared_norm.h.
#ifndef TESSERA_TENSOR_OPS_SQUARED_NORM_SQUARED_NORM_KERNEL_H_
#define TESSERA_TENSOR_OPS_SQUARED_NORM_SQUARED_NORM_KERNEL_H_

#include <cstdint>

#include "core/kernel.h"

namespace tessera {

struct SquaredNormArgs {
  const float* x;  // [n]
  int64_t n;
  double* result;  // one number, in memory of the host

  KernelCost Cost() const { return KernelCost::OfStreams(n, {DType::kF32}); }
};
extern KernelSlot<void(const SquaredNormArgs&)> squared_norm;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_SQUARED_NORM_SQUARED_NORM_KERNEL_H_
