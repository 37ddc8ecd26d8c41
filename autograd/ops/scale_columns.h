// Differentiable factors of columns.
#ifndef TESSERA_AUTOGRAD_OPS_SCALE_COLUMNS_H_
#define TESSERA_AUTOGRAD_OPS_SCALE_COLUMNS_H_

#include "tensor/tensor.h"

namespace tessera {

// x [..., C], f32 or bf16, times scale f32 [C] -> the same shape and dtype.
Tensor ScaleColumns(const Tensor& x, const Tensor& scale);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_SCALE_COLUMNS_H_
