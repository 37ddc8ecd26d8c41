// y += x.
#ifndef TESSERA_TENSOR_OPS_ADD_ADD_H_
#define TESSERA_TENSOR_OPS_ADD_ADD_H_

#include <cstdint>

#include "tensor/ops/add/add_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// Adds x to y element by element; both f32 or bf16, as many elements. The sum is formed in f32.
void AddInPlace(const Tensor& y, const Tensor& x);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_ADD_ADD_H_
