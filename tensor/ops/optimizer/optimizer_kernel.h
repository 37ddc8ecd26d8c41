// Kernels of the optimizers: what runs on a device, on pointers and sizes. Formulas: optimizer.h.
#ifndef TESSERA_TENSOR_OPS_OPTIMIZER_OPTIMIZER_KERNEL_H_
#define TESSERA_TENSOR_OPS_OPTIMIZER_OPTIMIZER_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

// Elements [begin, end) of the flat buffers, updated alike.
struct ParameterRange {
  int64_t begin;
  int64_t end;
  float weight_decay = 0.0f;
  float lr_scale = 1.0f;  // times the learning rate, for layer-wise decay
};

// What both optimizers work on. Buffers have n elements each.
struct OptimizerArgs {
  float* value;
  const float* grad;
  BF16* bf16;  // copy of the new values, or null
  float* ema;  // moving average of the values, or null
  int64_t n;
  const ParameterRange* ranges;  // sorted, disjoint, not empty
  int64_t num_ranges;
  float lr;
  float grad_scale;
  float ema_decay;

  // Value and `num_moments` moments are read and written, gradients read.
  KernelCost CostWith(int64_t num_moments) const {
    const int64_t f32_streams = 3 + 2 * num_moments + (ema == nullptr ? 0 : 2);
    const int64_t bytes = f32_streams * 4 + (bf16 == nullptr ? 0 : 2);
    return {0, static_cast<double>(n * bytes)};
  }
};

struct AdamWArgs : OptimizerArgs {
  float* m;
  float* v;
  float beta1;
  float beta2;
  float eps;
  float bias_correction1;  // 1 - beta1^step
  float bias_correction2;  // 1 - beta2^step

  KernelCost Cost() const { return CostWith(2); }
};
extern KernelSlot<void(const AdamWArgs&)> adamw;

struct SgdArgs : OptimizerArgs {
  float* momentum;  // or null
  float momentum_decay;
  bool nesterov;

  KernelCost Cost() const { return CostWith(momentum == nullptr ? 0 : 1); }
};
extern KernelSlot<void(const SgdArgs&)> sgd;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_OPTIMIZER_OPTIMIZER_KERNEL_H_
