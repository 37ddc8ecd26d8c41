// Kernels of bi-level routing attention: what runs on a device, on pointers and sizes. Formulas:
// bilevel_routing.h.
#ifndef TESSERA_ATTENTION_BILEVEL_ROUTING_BILEVEL_ROUTING_KERNEL_H_
#define TESSERA_ATTENTION_BILEVEL_ROUTING_BILEVEL_ROUTING_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

// A batch of maps [B, H, W, C], C = num_heads * head_dim, cut into regions of region_height x
// region_width tokens from the top left. Those at the right and bottom may reach past the map:
// their positions there have zero keys and values.
struct RoutedAttentionShape {
  int64_t batch = 0;
  int64_t height = 0;
  int64_t width = 0;
  int64_t num_heads = 1;
  int64_t head_dim = 1;
  int64_t region_height = 1;
  int64_t region_width = 1;
  int64_t topk = 1;    // regions that a region attends to
  float scale = 1.0f;  // of the logits

  int64_t channels() const { return num_heads * head_dim; }
  int64_t tokens() const { return batch * height * width; }
  int64_t region_rows() const { return (height + region_height - 1) / region_height; }
  int64_t region_columns() const { return (width + region_width - 1) / region_width; }
  int64_t regions() const { return region_rows() * region_columns(); }  // of one image
  int64_t region_tokens() const { return region_height * region_width; }
  // Multiply-adds of one product: pairs of a query and a key, times channels.
  double pairs() const {
    return static_cast<double>(tokens()) * static_cast<double>(topk * region_tokens() * channels());
  }
};

struct RouteArgs {
  DType dtype = DType::kF32;  // of qkv: f32 or bf16
  RoutedAttentionShape shape;
  const void* qkv = nullptr;  // [B, H, W, 3C]
  int32_t* routes = nullptr;  // [B, regions, topk]

  KernelCost Cost() const {
    const auto regions = static_cast<double>(shape.regions());
    const auto channels = static_cast<double>(shape.channels());
    return {
        2 * static_cast<double>(shape.batch) * regions * regions * channels,
        2 * static_cast<double>(shape.tokens()) * channels * static_cast<double>(SizeOf(dtype))};
  }
};

struct RoutedAttentionArgs {
  DType dtype = DType::kF32;  // of qkv and out
  RoutedAttentionShape shape;
  const void* qkv = nullptr;        // [B, H, W, 3C]
  const int32_t* routes = nullptr;  // [B, regions, topk]
  void* out = nullptr;              // [B, H, W, C]

  // Two products; qkv and out pass through memory once.
  KernelCost Cost() const {
    return {4 * shape.pairs(),
            4.0 * static_cast<double>(shape.tokens() * shape.channels() * SizeOf(dtype))};
  }
};

struct RoutedAttentionGradArgs {
  DType dtype = DType::kF32;  // of qkv, d_out and d_qkv
  RoutedAttentionShape shape;
  const void* qkv = nullptr;
  const int32_t* routes = nullptr;
  const void* d_out = nullptr;  // [B, H, W, C]
  void* d_qkv = nullptr;        // [B, H, W, 3C], overwritten

  // Five products, one of them to compute the logits again.
  KernelCost Cost() const {
    return {10 * shape.pairs(),
            7.0 * static_cast<double>(shape.tokens() * shape.channels() * SizeOf(dtype))};
  }
};

extern KernelSlot<void(const RouteArgs&)> bilevel_routing_route;
extern KernelSlot<void(const RoutedAttentionArgs&)> bilevel_routing_forward;
extern KernelSlot<void(const RoutedAttentionGradArgs&)> bilevel_routing_backward;

}  // namespace tessera

#endif  // TESSERA_ATTENTION_BILEVEL_ROUTING_BILEVEL_ROUTING_KERNEL_H_
