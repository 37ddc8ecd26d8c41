// Kernels of matrix products: what runs on a device, on pointers and sizes. Formulas: matmul.h.
#ifndef TESSERA_TENSOR_OPS_MATMUL_MATMUL_KERNEL_H_
#define TESSERA_TENSOR_OPS_MATMUL_MATMUL_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

// c[m, n] = op(a) op(b) + bias[n] (+ c, when accumulate). a and b are row-major; op transposes when
// the flag is set, so a is stored [m, k] or, transposed, [k, m], and b is stored [k, n] or [n, k].
// Products of bf16 are summed in f32.
struct MatMulArgs {
  const void* a;
  const void* b;
  const float* bias;  // [n], or null
  void* c;
  int64_t m, n, k;
  bool transpose_a;
  bool transpose_b;
  bool accumulate;
  DType in_dtype;   // of a and b: f32 or bf16
  DType out_dtype;  // of c: f32, or bf16 when the inputs are bf16

  KernelCost Cost() const {
    const double md = static_cast<double>(m), nd = static_cast<double>(n);
    const double kd = static_cast<double>(k);
    return {2 * md * nd * kd, static_cast<double>(SizeOf(in_dtype)) * (md + nd) * kd +
                                  static_cast<double>(SizeOf(out_dtype)) * md * nd};
  }
};
extern KernelSlot<void(const MatMulArgs&)> matmul;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_MATMUL_MATMUL_KERNEL_H_
