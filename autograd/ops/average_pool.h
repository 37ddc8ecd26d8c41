// Differentiable average pooling 2 x 2. Formulas: tensor/ops/average_pool/average_pool.h.
#ifndef TESSERA_AUTOGRAD_OPS_AVERAGE_POOL_H_
#define TESSERA_AUTOGRAD_OPS_AVERAGE_POOL_H_

#include "tensor/tensor.h"

namespace tessera {

// x [B, H, W, C] f32 or bf16 -> [B, ceil(H / 2), ceil(W / 2), C] of `out_dtype`.
Tensor AveragePool(const Tensor& x, DType out_dtype);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_AVERAGE_POOL_H_
