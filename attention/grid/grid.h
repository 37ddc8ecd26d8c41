// Block and grid attention (Tu et al., arXiv 2204.01697): attention inside windows of a map, and
// among pixels spread evenly over all of it, both with relative position bias.
#ifndef TESSERA_ATTENTION_GRID_GRID_H_
#define TESSERA_ATTENTION_GRID_GRID_H_

#include <cstdint>

#include "attention/grid/grid_kernel.h"
#include "attention/grid/relative_position.h"
#include "layers/forward_context.h"
#include "layers/linear.h"

namespace tessera {

struct GridAttentionOptions {
  Partition partition = Partition::kBlock;
  int64_t num_heads = 1;
  int64_t rows = 1;  // of a group
  int64_t columns = 1;
  bool head_first = false;  // channels of qkv are (head, 3, head_dim), else (3, head, head_dim)
};

// The map is cut into groups of rows x columns tokens: windows from the top left, or, for kGrid,
// the pixels (p H / rows + i, q W / columns + j) for each (i, j), in the order of (p, q). In each
// group and for each head,
//   out = softmax(head_dim^-1/2 q k^T + bias) v.
// qkv [B, H, W, 3C], f32 or bf16, C a multiple of num_heads, H and W multiples of rows and columns;
// bias f32 [num_heads, tokens, tokens] -> out [B, H, W, C] of qkv's dtype. Saves qkv alone; logits
// are computed again in the backward pass.
Tensor GridAttention(const Tensor& qkv, const Tensor& bias, const GridAttentionOptions& options);

namespace attention {

// Parameters: qkv.weight [3C, C], qkv.bias [3C], proj.weight [C, C], proj.bias [C] (Xavier uniform
// and zeros), with C = dim; and rel_pos, the bias.
class GridAttention : public Module {
 public:
  struct Options {
    GridAttentionOptions attention;
    RelativeTable table = RelativeTable::kKeyMinusQuery;
    int64_t mlp_hidden_dim = 0;  // of an MLP in place of the table; 0: a table
  };
  GridAttention(int64_t dim, const Options& options);
  // x [B, H, W, C], f32 or bf16 -> [B, H, W, C] of `out_dtype`; q, k and v are of x's dtype.
  Tensor Forward(const Tensor& x, const ForwardContext& context, DType out_dtype) const;

  // The softmax weights that positions get; see attention/attention_map.h.
  Tensor AttentionMap(const Tensor& x) const;

 private:
  Tensor Bias(const ForwardContext& context) const {
    return table_ != nullptr ? table_->Bias() : mlp_->Bias(context);
  }

  GridAttentionOptions options_;
  layers::Linear& qkv_;
  RelativePositionTable* table_ = nullptr;
  RelativePositionMlp* mlp_ = nullptr;
  layers::Linear& proj_;
};

}  // namespace attention
}  // namespace tessera

#endif  // TESSERA_ATTENTION_GRID_GRID_H_
