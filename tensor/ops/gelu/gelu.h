// GELU with the exact normal distribution function: x Phi(x) (Hendrycks and Gimpel, arXiv
// 1606.08415).
#ifndef TESSERA_TENSOR_OPS_GELU_GELU_H_
#define TESSERA_TENSOR_OPS_GELU_GELU_H_

#include <cstdint>

#include "tensor/ops/gelu/gelu_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// x Phi(x), of x's shape and dtype (f32 or bf16). Absolute error under 4e-7 in f32, 1.6e-5
// before rounding in bf16.
Tensor Gelu(const Tensor& x);
// The same, written to y, which may be x.
void GeluTo(const Tensor& x, const Tensor& y);

// Where the gradients go.
struct GeluGradients {
  Tensor dx;     // of x's dtype; may share dy's memory unless accumulated to
  Tensor dbias;  // f32 [C], or undefined: the sum of dx over rows, the gradient of a bias that was
                 // added to x [..., C]
  Tensor y;  // of x's dtype, or undefined: GELU of x, where it was not kept; may share x's memory
  bool accumulate_dx = false;
  bool accumulate_dbias = false;
};

// dx = dy (Phi(x) + x phi(x)); dy, x and dx have one shape and dtype.
void GeluBackward(const Tensor& dy, const Tensor& x, const GeluGradients& gradients);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_GELU_GELU_H_
