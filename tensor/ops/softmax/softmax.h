// Softmax over the last axis, for evaluation; attentions and the loss have kernels of their own.
#ifndef TESSERA_TENSOR_OPS_SOFTMAX_SOFTMAX_H_
#define TESSERA_TENSOR_OPS_SOFTMAX_SOFTMAX_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/tensor.h"

namespace tessera {

struct SoftmaxArgs {
  const void* x;  // [rows, columns]
  float* y;       // [rows, columns]
  int64_t rows, columns;
  DType x_dtype;  // f32 or bf16
};
extern KernelSlot<void(const SoftmaxArgs&)> softmax;

namespace ops {

// exp(x - max) / sum over the last axis: x [..., C] f32 or bf16, result f32.
Tensor Softmax(const Tensor& x);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_SOFTMAX_SOFTMAX_H_
