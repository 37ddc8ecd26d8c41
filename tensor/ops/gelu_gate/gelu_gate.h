// The gated GELU of a gated linear unit: GELU(x) gate (Shazeer, arXiv 2002.05202).
#ifndef TESSERA_TENSOR_OPS_GELU_GATE_GELU_GATE_H_
#define TESSERA_TENSOR_OPS_GELU_GATE_GELU_GATE_H_

#include <cstdint>

#include "tensor/ops/gelu_gate/gelu_gate_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// y = GELU(x) gate, exact GELU; all of one shape and dtype, f32 or bf16. y may be x or gate.
void GeluGateTo(const Tensor& x, const Tensor& gate, const Tensor& y);

// Its gradients, each in the place of what it belongs to: given dy, x and gate, they become y, dx
// and dgate. y is what the gradient of a product that follows needs.
void GeluGateBackwardInPlace(const Tensor& dy, const Tensor& x, const Tensor& gate);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_GELU_GATE_GELU_GATE_H_
