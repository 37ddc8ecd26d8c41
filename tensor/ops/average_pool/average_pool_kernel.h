// Kernels of average pooling: what runs on a device, on pointers and sizes. Formulas:
// average_pool.h.
#ifndef TESSERA_TENSOR_OPS_AVERAGE_POOL_AVERAGE_POOL_KERNEL_H_
#define TESSERA_TENSOR_OPS_AVERAGE_POOL_AVERAGE_POOL_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct AveragePoolArgs {
  const void* x;  // [batch, height, width, channels], f32 or bf16
  void* y;        // [batch, ceil(height / 2), ceil(width / 2), channels], f32 or bf16
  int64_t batch, height, width, channels;
  DType x_dtype;
  DType y_dtype;
};
extern KernelSlot<void(const AveragePoolArgs&)> average_pool;

struct AveragePoolBackwardArgs {
  const void* dy;  // shaped like y
  void* dx;        // shaped like x
  int64_t batch, height, width, channels;
  bool accumulate;
  DType dy_dtype;
  DType dx_dtype;
};
extern KernelSlot<void(const AveragePoolBackwardArgs&)> average_pool_backward;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_AVERAGE_POOL_AVERAGE_POOL_KERNEL_H_
