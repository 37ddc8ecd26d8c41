// Elementwise activation functions. Formulas: tensor/activation.h.
#ifndef TESSERA_TENSOR_OPS_ACTIVATION_ACTIVATION_H_
#define TESSERA_TENSOR_OPS_ACTIVATION_ACTIVATION_H_

#include <cstdint>

#include "tensor/ops/activation/activation_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// activation(x), of x's shape and dtype (f32 or bf16), written to y, which may be x. Absolute error
// under 4e-7 (1 + |x|) in f32, 1.6e-5 before rounding in bf16.
void ActivateTo(const Tensor& x, Activation activation, const Tensor& y);

// Where the gradients go.
struct ActivationGradients {
  Tensor dx;     // of x's dtype; may share dy's memory unless accumulated to
  Tensor dbias;  // f32 [C], or undefined: the sum of dx over rows, the gradient of a bias that was
                 // added to x [..., C]
  Tensor
      y;  // of x's dtype, or undefined: activation(x), where it was not kept; may share x's memory
  bool accumulate_dx = false;
  bool accumulate_dbias = false;
};

// dx = dy activation'(x); dy, x and dx have one shape and dtype.
void ActivateBackward(const Tensor& dy, const Tensor& x, Activation activation,
                      const ActivationGradients& gradients);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_ACTIVATION_ACTIVATION_H_
