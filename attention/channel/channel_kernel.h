// Kernels of channel attention: what runs on a device, on pointers and sizes. Formulas: channel.h.
#ifndef TESSERA_ATTENTION_CHANNEL_CHANNEL_KERNEL_H_
#define TESSERA_ATTENTION_CHANNEL_CHANNEL_KERNEL_H_

#include <cmath>
#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

// Which of q, k and v play which part: k^T v applied to q, or q^T k applied to v.
enum class ChannelAttentionVersion { kKeysTimesValues = 1, kQueriesTimesKeys = 2 };

struct ChannelAttentionShape {
  int64_t batch = 0;
  int64_t tokens = 0;  // of one image
  int64_t num_heads = 1;
  int64_t head_dim = 1;
  ChannelAttentionVersion version = ChannelAttentionVersion::kKeysTimesValues;

  int64_t channels() const { return num_heads * head_dim; }
  // Multiply-adds of one product.
  double pairs() const { return static_cast<double>(batch * tokens * channels() * head_dim); }

  // Logits are scale * left^T right and apply to `values`: first channels of the three in a row of
  // qkv.
  bool keys_times_values() const { return version == ChannelAttentionVersion::kKeysTimesValues; }
  int64_t left() const { return keys_times_values() ? channels() : 0; }
  int64_t right() const { return left() + channels(); }
  int64_t values() const { return keys_times_values() ? 0 : 2 * channels(); }
  double scale() const {
    return 1.0 / std::sqrt(static_cast<double>(keys_times_values() ? head_dim : tokens));
  }
};

struct ChannelAttentionArgs {
  DType dtype = DType::kF32;  // of qkv and out: f32 or bf16
  ChannelAttentionShape shape;
  const void* qkv = nullptr;   // [B, N, 3C]
  float* attention = nullptr;  // [B, num_heads, head_dim, head_dim]: softmax, for the backward pass
  void* out = nullptr;         // [B, N, C]

  // Two products; qkv and out pass through memory once.
  KernelCost Cost() const {
    return {4 * shape.pairs(), 4.0 * static_cast<double>(shape.batch * shape.tokens *
                                                         shape.channels() * SizeOf(dtype))};
  }
};

struct ChannelAttentionGradArgs {
  DType dtype = DType::kF32;  // of qkv, d_out and d_qkv
  ChannelAttentionShape shape;
  const void* qkv = nullptr;
  const float* attention = nullptr;
  const void* d_out = nullptr;  // [B, N, C]
  void* d_qkv = nullptr;        // [B, N, 3C], overwritten

  // Four products; qkv, d_out and d_qkv pass through memory once.
  KernelCost Cost() const {
    return {8 * shape.pairs(), 7.0 * static_cast<double>(shape.batch * shape.tokens *
                                                         shape.channels() * SizeOf(dtype))};
  }
};

extern KernelSlot<void(const ChannelAttentionArgs&)> channel_attention_forward;
extern KernelSlot<void(const ChannelAttentionGradArgs&)> channel_attention_backward;

}  // namespace tessera

#endif  // TESSERA_ATTENTION_CHANNEL_CHANNEL_KERNEL_H_
