// Sum of squares, for the norm of all gradients.
#ifndef TESSERA_TENSOR_OPS_SQUARED_NORM_SQUARED_NORM_H_
#define TESSERA_TENSOR_OPS_SQUARED_NORM_SQUARED_NORM_H_

#include <cstdint>

#include "tensor/ops/squared_norm/squared_norm_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// Sum of the squares of an f32 tensor's elements, in double: the same bits for any number of
// threads. Not finite if an element is not.
double SquaredNorm(const Tensor& x);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_SQUARED_NORM_SQUARED_NORM_H_
