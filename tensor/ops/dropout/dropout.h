// Dropout (Srivastava et al., JMLR 15, 2014), with a mask that is made again instead of saved.
#ifndef TESSERA_TENSOR_OPS_DROPOUT_DROPOUT_H_
#define TESSERA_TENSOR_OPS_DROPOUT_DROPOUT_H_

#include <cstdint>

#include "core/random.h"
#include "tensor/ops/dropout/dropout_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// y = x / (1 - rate) with probability 1 - rate, else 0, element by element: x and y of one dtype,
// f32 or bf16, at most 2^34 elements; y may be x. Element i is dropped if word i of the stream
// `key` is below rate * 2^32. Applied to dy with the same rate and key it is the gradient.
// 0 <= rate < 1.
void DropoutTo(const Tensor& x, double rate, const RandomKey& key, const Tensor& y);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_DROPOUT_DROPOUT_H_
