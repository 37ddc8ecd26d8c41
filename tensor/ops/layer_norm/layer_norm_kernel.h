// Kernels of layer norm: what runs on a device, on pointers and sizes. Formulas: layer_norm.h.
#ifndef TESSERA_TENSOR_OPS_LAYER_NORM_LAYER_NORM_KERNEL_H_
#define TESSERA_TENSOR_OPS_LAYER_NORM_LAYER_NORM_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct LayerNormArgs {
  const void* x;       // [rows, channels]
  const float* gamma;  // [channels]
  const float* beta;   // [channels]
  void* y;             // [rows, channels]
  float* mean;         // [rows]
  float* rstd;         // [rows]
  int64_t rows;
  int64_t channels;
  float eps;
  DType x_dtype;  // f32 or bf16
  DType y_dtype;  // f32 or bf16

  KernelCost Cost() const { return KernelCost::OfStreams(rows * channels, {x_dtype, y_dtype}); }
};
extern KernelSlot<void(const LayerNormArgs&)> layer_norm;

struct LayerNormBackwardArgs {
  const void* dy;      // [rows, channels]
  const void* x;       // [rows, channels]
  const float* mean;   // [rows]
  const float* rstd;   // [rows]
  const float* gamma;  // [channels]
  void* dx;            // [rows, channels], of x's dtype
  float* dgamma;       // [channels], or null
  float* dbeta;        // [channels], or null
  int64_t rows;
  int64_t channels;
  bool accumulate_dx;
  bool accumulate_dgamma;
  bool accumulate_dbeta;
  DType dy_dtype;  // f32 or bf16
  DType x_dtype;   // f32 or bf16

  KernelCost Cost() const {
    const int64_t n = rows * channels;
    return accumulate_dx ? KernelCost::OfStreams(n, {dy_dtype, x_dtype, x_dtype, x_dtype})
                         : KernelCost::OfStreams(n, {dy_dtype, x_dtype, x_dtype});
  }
};
extern KernelSlot<void(const LayerNormBackwardArgs&)> layer_norm_backward;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_LAYER_NORM_LAYER_NORM_KERNEL_H_
