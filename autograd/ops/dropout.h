// Differentiable dropout.
#ifndef TESSERA_AUTOGRAD_OPS_DROPOUT_H_
#define TESSERA_AUTOGRAD_OPS_DROPOUT_H_

#include "core/random.h"
#include "tensor/tensor.h"

namespace tessera {

// x / (1 - rate) with probability 1 - rate, else 0; x f32 or bf16, 0 <= rate < 1. The mask follows
// from `key` (purpose kDropout, step, op) alone, see ops::DropoutTo; nothing is saved for backward.
// Rate 0 gives x itself.
Tensor Dropout(const Tensor& x, double rate, const RandomKey& key);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_DROPOUT_H_
