// Kernels of block and grid attention: what runs on a device, on pointers and sizes. Formulas:
// grid.h.
#ifndef TESSERA_ATTENTION_GRID_GRID_KERNEL_H_
#define TESSERA_ATTENTION_GRID_GRID_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"

namespace tessera {

// Which pixels form a group of rows x columns: neighbours, or those that a grid of that many cells
// meets at the same place of each cell.
enum class Partition : uint8_t { kBlock, kGrid };

// A batch of maps [B, H, W, C], C = num_heads * head_dim, H and W multiples of rows and columns.
struct GridAttentionShape {
  int64_t batch = 0;
  int64_t height = 0;
  int64_t width = 0;
  int64_t num_heads = 1;
  int64_t head_dim = 1;
  int64_t rows = 1;
  int64_t columns = 1;
  Partition partition = Partition::kBlock;
  bool head_first = false;  // channels of qkv are (head, 3, head_dim), else (3, head, head_dim)

  constexpr int64_t channels() const { return num_heads * head_dim; }
  constexpr int64_t pixels() const { return batch * height * width; }
  constexpr int64_t tokens() const { return rows * columns; }  // of a group
  constexpr int64_t groups_down() const { return height / rows; }
  constexpr int64_t groups_across() const { return width / columns; }
  constexpr int64_t groups() const { return batch * groups_down() * groups_across(); }
  // Steps between the pixels of a group, down and across.
  constexpr int64_t step_down() const { return partition == Partition::kBlock ? 1 : groups_down(); }
  constexpr int64_t step_across() const {
    return partition == Partition::kBlock ? 1 : groups_across();
  }
  // Pixel of the first token of a group; groups are numbered row by row.
  constexpr int64_t FirstPixel(int64_t group) const {
    const int64_t image = group / (groups_down() * groups_across());
    const int64_t down = group / groups_across() % groups_down(), across = group % groups_across();
    const bool block = partition == Partition::kBlock;
    return (image * height + down * (block ? rows : 1)) * width + across * (block ? columns : 1);
  }
  // First channel of part 0, 1 or 2 (q, k or v) of a head in qkv.
  constexpr int64_t PartChannel(int64_t head, int64_t part) const {
    return head_first ? (head * 3 + part) * head_dim : (part * num_heads + head) * head_dim;
  }
  // Multiply-adds of one product: pairs of tokens in a group, times channels.
  double pairs() const {
    return static_cast<double>(pixels()) * static_cast<double>(tokens() * channels());
  }
};

struct GridAttentionArgs {
  DType dtype = DType::kF32;  // of qkv and out: f32 or bf16
  GridAttentionShape shape;
  const void* qkv = nullptr;    // [B, H, W, 3C]
  const float* bias = nullptr;  // [num_heads, tokens, tokens]
  void* out = nullptr;          // [B, H, W, C]

  // Two products; qkv and out pass through memory once.
  KernelCost Cost() const {
    return {4 * shape.pairs(),
            4.0 * static_cast<double>(shape.pixels() * shape.channels() * SizeOf(dtype))};
  }
};

struct GridAttentionGradArgs {
  DType dtype = DType::kF32;  // of qkv, d_out and d_qkv
  GridAttentionShape shape;
  const void* qkv = nullptr;
  const float* bias = nullptr;
  const void* d_out = nullptr;  // [B, H, W, C]
  void* d_qkv = nullptr;        // [B, H, W, 3C]
  float* d_bias = nullptr;      // [num_heads, tokens, tokens], overwritten

  // Five products, one of them to compute the logits again.
  KernelCost Cost() const {
    return {10 * shape.pairs(),
            7.0 * static_cast<double>(shape.pixels() * shape.channels() * SizeOf(dtype))};
  }
};

extern KernelSlot<void(const GridAttentionArgs&)> grid_attention_forward;
extern KernelSlot<void(const GridAttentionGradArgs&)> grid_attention_backward;

}  // namespace tessera

#endif  // TESSERA_ATTENTION_GRID_GRID_KERNEL_H_
