// Differentiable conversion between f32 and bf16.
#ifndef TESSERA_AUTOGRAD_OPS_CAST_H_
#define TESSERA_AUTOGRAD_OPS_CAST_H_

#include "tensor/tensor.h"

namespace tessera {

// x converted to `dtype`; x itself if it has that dtype. The gradient is converted back.
Tensor Cast(const Tensor& x, DType dtype);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_CAST_H_
