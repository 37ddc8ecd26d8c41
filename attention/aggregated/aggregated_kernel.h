// Kernels of aggregated attention: what runs on a device, on pointers and sizes. Formulas:
// aggregated.h.
#ifndef TESSERA_ATTENTION_AGGREGATED_AGGREGATED_KERNEL_H_
#define TESSERA_ATTENTION_AGGREGATED_AGGREGATED_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

// A batch of maps [B, H, W, C], C = num_heads * head_dim, and P keys per image that every query
// sees.
struct AggregatedAttentionShape {
  int64_t batch = 0;
  int64_t height = 0;
  int64_t width = 0;
  int64_t num_heads = 1;
  int64_t head_dim = 1;
  int64_t window = 0;      // odd side of the neighbourhood of a query; 0 for none
  int64_t num_pooled = 1;  // P

  int64_t channels() const { return num_heads * head_dim; }
  int64_t positions() const { return height * width; }
  int64_t tokens() const { return batch * positions(); }
  int64_t slots() const { return window * window; }  // L
  // Multiply-adds of one product of every query with `keys` keys.
  double pairs(int64_t keys) const {
    return static_cast<double>(tokens()) * static_cast<double>(channels() * keys);
  }
  // q, k, v and the output pass through memory once, in elements.
  double map_elements() const { return 4.0 * static_cast<double>(tokens() * channels()); }
};

// The bias of query (y, x) and pooled key j in a head is
// values[head * head_stride + key_offsets[j] + y * row_stride + x].
struct PositionBiasArgs {
  const float* values = nullptr;         // [num_heads, head_stride]
  const int64_t* key_offsets = nullptr;  // [P]
  int64_t row_stride = 0;
  int64_t head_stride = 0;
};

struct AggregatedAttentionArgs {
  DType dtype = DType::kF32;  // of all maps: f32 or bf16
  AggregatedAttentionShape shape;
  // Rows of C channels, one per position; those of k and v are not used without a neighbourhood.
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t q_stride = 0;  // elements from one row to the next
  int64_t kv_stride = 0;
  // Rows of C channels, P per image.
  const void* pooled_k = nullptr;
  const void* pooled_v = nullptr;
  int64_t pooled_stride = 0;
  const float* temperature = nullptr;      // [h], before softplus
  const float* query_embedding = nullptr;  // [h, d]
  PositionBiasArgs position_bias;
  // Of the neighbourhood; null without one.
  const float* local_bias = nullptr;  // [h, L]
  const float* tokens = nullptr;      // [h, d, L]
  const float* token_bias = nullptr;  // [h, L]
  void* out = nullptr;                // [B, H, W, C]

  // Two products with every key, and one of the query with the learned tokens.
  KernelCost Cost() const {
    return {2 * shape.pairs(3 * shape.slots() + 2 * shape.num_pooled),
            shape.map_elements() * static_cast<double>(SizeOf(dtype))};
  }
};

// All gradients are overwritten.
struct AggregatedAttentionGradArgs {
  AggregatedAttentionArgs forward;  // out is not used
  const void* d_out = nullptr;      // [B, H, W, C]
  void* d_q = nullptr;              // laid out as q, and so on
  void* d_k = nullptr;
  void* d_v = nullptr;
  void* d_pooled_k = nullptr;
  void* d_pooled_v = nullptr;
  float* d_temperature = nullptr;
  float* d_query_embedding = nullptr;
  float* d_position_bias = nullptr;  // [num_heads, head_stride]
  float* d_local_bias = nullptr;
  float* d_tokens = nullptr;
  float* d_token_bias = nullptr;

  // Forward's logits again, and two products for each of its products.
  KernelCost Cost() const {
    const AggregatedAttentionShape& s = forward.shape;
    return {2 * s.pairs(8 * s.slots() + 5 * s.num_pooled),
            2 * s.map_elements() * static_cast<double>(SizeOf(forward.dtype))};
  }
};

extern KernelSlot<void(const AggregatedAttentionArgs&)> aggregated_attention_forward;
extern KernelSlot<void(const AggregatedAttentionGradArgs&)> aggregated_attention_backward;

}  // namespace tessera

#endif  // TESSERA_ATTENTION_AGGREGATED_AGGREGATED_KERNEL_H_
