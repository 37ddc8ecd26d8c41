// Matrix product with fused bias, the one product behind linear layers and their gradients.
#ifndef TESSERA_TENSOR_OPS_MATMUL_MATMUL_H_
#define TESSERA_TENSOR_OPS_MATMUL_MATMUL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/tensor.h"

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

namespace ops {

// y = x w^T + bias: x [..., in], w [out, in] of x's dtype, bias f32 [out] or undefined; y [...,
// out] of `out_dtype`.
Tensor Linear(const Tensor& x, const Tensor& w, const Tensor& bias, DType out_dtype);
// dx = dy w: dy [..., out] of w's dtype, w [out, in]; written to (or added to) dx [..., in].
void LinearGradInput(const Tensor& dy, const Tensor& w, const Tensor& dx, bool accumulate);
// dw = dy^T x, f32 [out, in]: dy [..., out] and x [..., in] of one dtype; written to (or added to)
// dw.
void LinearGradWeight(const Tensor& dy, const Tensor& x, const Tensor& dw, bool accumulate);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_MATMUL_MATMUL_H_
