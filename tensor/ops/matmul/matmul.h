// Matrix product with fused bias, the one product behind linear layers and their gradients.
#ifndef TESSERA_TENSOR_OPS_MATMUL_MATMUL_H_
#define TESSERA_TENSOR_OPS_MATMUL_MATMUL_H_

#include <cstdint>

#include "tensor/ops/matmul/matmul_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
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
