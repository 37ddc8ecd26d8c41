// Dropout (Srivastava et al., JMLR 15, 2014), with a mask that is made again instead of saved.
#ifndef TESSERA_TENSOR_OPS_DROPOUT_DROPOUT_H_
#define TESSERA_TENSOR_OPS_DROPOUT_DROPOUT_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "core/random.h"
#include "tensor/tensor.h"

namespace tessera {

struct DropoutArgs {
  const void* x;  // [n]
  void* y;        // [n]; may be x
  int64_t n;
  uint32_t threshold;  // element i is zeroed if word i of the stream is below this
  float scale;         // of the elements kept
  RandomKey key;
  DType dtype;  // f32 or bf16
};
extern KernelSlot<void(const DropoutArgs&)> dropout;

namespace ops {

// y = x / (1 - rate) with probability 1 - rate, else 0, element by element: x and y of one dtype,
// f32 or bf16, at most 2^34 elements; y may be x. Element i is dropped if word i of the stream
// `key` is below rate * 2^32. Applied to dy with the same rate and key it is the gradient.
// 0 <= rate < 1.
void DropoutTo(const Tensor& x, double rate, const RandomKey& key, const Tensor& y);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_DROPOUT_DROPOUT_H_
