// Kernels of dropout: what runs on a device, on pointers and sizes. Formulas: dropout.h.
#ifndef TESSERA_TENSOR_OPS_DROPOUT_DROPOUT_KERNEL_H_
#define TESSERA_TENSOR_OPS_DROPOUT_DROPOUT_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

struct DropoutArgs {
  const void* x;  // [n]
  void* y;        // [n]; may be x
  int64_t n;
  uint32_t threshold;         // element i is zeroed if word i of the stream is below this
  float scale;                // of the elements kept
  uint32_t key[2], nonce[2];  // of the stream, as RandomKey has them
  DType dtype;                // f32 or bf16
};
extern KernelSlot<void(const DropoutArgs&)> dropout;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_DROPOUT_DROPOUT_KERNEL_H_
