// Kernels of the mean over pixels: what runs on a device, on pointers and sizes. Formulas:
// mean_pool.h.
#ifndef TESSERA_TENSOR_OPS_MEAN_POOL_MEAN_POOL_KERNEL_H_
#define TESSERA_TENSOR_OPS_MEAN_POOL_MEAN_POOL_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct MeanPoolArgs {
  const void* x;  // [batch, pixels, channels]
  float* y;       // [batch, channels]
  int64_t batch, pixels, channels;
  DType x_dtype;  // f32 or bf16
};
extern KernelSlot<void(const MeanPoolArgs&)> mean_pool;

struct MeanPoolBackwardArgs {
  const float* dy;  // [batch, channels]
  void* dx;         // [batch, pixels, channels]
  int64_t batch, pixels, channels;
  bool accumulate;
  DType dx_dtype;  // f32 or bf16
};
extern KernelSlot<void(const MeanPoolBackwardArgs&)> mean_pool_backward;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_MEAN_POOL_MEAN_POOL_KERNEL_H_
