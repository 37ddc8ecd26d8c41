// Kernels of the network behind position biases: what runs on a device, on pointers and sizes.
// Formulas: position_bias.h.
#ifndef TESSERA_ATTENTION_AGGREGATED_LOG_CPB_KERNEL_H_
#define TESSERA_ATTENTION_AGGREGATED_LOG_CPB_KERNEL_H_

#include <cstdint>

#include "core/kernel.h"

namespace tessera {

struct LogCpbArgs {
  const float* y = nullptr;         // [m]
  const float* x = nullptr;         // [n]
  const float* fc1 = nullptr;       // [hidden, 2]
  const float* fc1_bias = nullptr;  // [hidden]
  const float* fc2 = nullptr;       // [num_heads, hidden]
  const float* fc2_bias = nullptr;  // [num_heads]
  float* out = nullptr;             // [num_heads, m, n]
  int64_t m = 0;
  int64_t n = 0;
  int64_t hidden = 0;
  int64_t num_heads = 0;

  double products() const {
    return static_cast<double>(m * n) * static_cast<double>(hidden * (2 + num_heads));
  }
  KernelCost Cost() const { return {2 * products(), 4.0 * static_cast<double>(num_heads * m * n)}; }
};

// All gradients are overwritten.
struct LogCpbGradArgs {
  LogCpbArgs forward;            // out and fc2_bias are not used
  const float* d_out = nullptr;  // [num_heads, m, n]
  float* d_fc1 = nullptr;
  float* d_fc1_bias = nullptr;
  float* d_fc2 = nullptr;
  float* d_fc2_bias = nullptr;

  KernelCost Cost() const {
    return {6 * forward.products(),
            4.0 * static_cast<double>(forward.num_heads * forward.m * forward.n)};
  }
};

extern KernelSlot<void(const LogCpbArgs&)> log_cpb_forward;
extern KernelSlot<void(const LogCpbGradArgs&)> log_cpb_backward;

}  // namespace tessera

#endif  // TESSERA_ATTENTION_AGGREGATED_LOG_CPB_KERNEL_H_
