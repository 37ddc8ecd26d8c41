// Kernels of window attention: what runs on a device, on pointers and sizes. Formulas: window.h.
#ifndef TESSERA_ATTENTION_WINDOW_WINDOW_KERNEL_H_
#define TESSERA_ATTENTION_WINDOW_WINDOW_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

// A batch of maps [B, H, W, C], C = num_heads * head_dim, cut into windows of window x window.
struct WindowAttentionShape {
  int64_t batch = 0;
  int64_t height = 0;
  int64_t width = 0;
  int64_t num_heads = 1;
  int64_t head_dim = 1;
  int64_t window = 1;

  int64_t channels() const { return num_heads * head_dim; }
  int64_t tokens() const { return batch * height * width; }
  int64_t window_rows() const { return (height + window - 1) / window; }
  int64_t window_columns() const { return (width + window - 1) / window; }
  // Multiply-adds of one product: pairs of tokens in a window, times channels.
  double pairs() const {
    return static_cast<double>(tokens()) * static_cast<double>(window * window * channels());
  }
};

struct WindowAttentionArgs {
  DType dtype = DType::kF32;  // of qkv and out: f32 or bf16
  WindowAttentionShape shape;
  const void* qkv = nullptr;        // [B, H, W, 3C]
  const float* qkv_bias = nullptr;  // [3C]: q, k and v of padded positions; null for zeros
  void* out = nullptr;              // [B, H, W, C]

  // Two products; qkv and out pass through memory once.
  KernelCost Cost() const {
    return {4 * shape.pairs(),
            4.0 * static_cast<double>(shape.tokens() * shape.channels() * SizeOf(dtype))};
  }
};

struct WindowAttentionGradArgs {
  DType dtype = DType::kF32;  // of qkv, d_out and d_qkv
  WindowAttentionShape shape;
  const void* qkv = nullptr;
  const float* qkv_bias = nullptr;
  const void* d_out = nullptr;      // [B, H, W, C]
  void* d_qkv = nullptr;            // [B, H, W, 3C]
  float* d_padding_bias = nullptr;  // [3C]: gradient reaching the bias through padded positions;
                                    // overwritten, may be null

  // Five products, one of them to compute the logits again.
  KernelCost Cost() const {
    return {10 * shape.pairs(),
            7.0 * static_cast<double>(shape.tokens() * shape.channels() * SizeOf(dtype))};
  }
};

extern KernelSlot<void(const WindowAttentionArgs&)> window_attention_forward;
extern KernelSlot<void(const WindowAttentionGradArgs&)> window_attention_backward;

}  // namespace tessera

#endif  // TESSERA_ATTENTION_WINDOW_WINDOW_KERNEL_H_
