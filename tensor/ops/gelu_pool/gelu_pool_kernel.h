// Kernels of pooling behind GELU: what runs on a device, on pointers and sizes. Formulas:
// gelu_pool.h.
#ifndef TESSERA_TENSOR_OPS_GELU_POOL_GELU_POOL_KERNEL_H_
#define TESSERA_TENSOR_OPS_GELU_POOL_GELU_POOL_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/ops/gelu_pool/pooled_axis.h"

namespace tessera {

struct GeluPoolArgs {
  const void* x;  // [B, H, W, C]
  float* y;       // [B, h, w, C]
  int64_t batch;
  PooledAxis rows, columns;  // H to h, W to w
  int64_t channels;
  DType x_dtype;  // f32 or bf16
};
extern KernelSlot<void(const GeluPoolArgs&)> gelu_pool;

struct GeluPoolBackwardArgs {
  const float* dy;  // [B, h, w, C]
  const void* x;    // [B, H, W, C]
  void* dx;         // [B, H, W, C], of x's dtype; overwritten
  int64_t batch;
  PooledAxis rows, columns;
  int64_t channels;
  DType x_dtype;
};
extern KernelSlot<void(const GeluPoolBackwardArgs&)> gelu_pool_backward;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_GELU_POOL_GELU_POOL_KERNEL_H_
