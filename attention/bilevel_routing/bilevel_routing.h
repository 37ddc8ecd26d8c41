// Bi-level routing attention (Zhu et al., BiFormer, arXiv 2303.08810): every region of a map picks
// the regions that it is most related to, and its tokens attend to the tokens of those alone. With
// one region it is plain attention among all tokens.
#ifndef TESSERA_ATTENTION_BILEVEL_ROUTING_BILEVEL_ROUTING_H_
#define TESSERA_ATTENTION_BILEVEL_ROUTING_BILEVEL_ROUTING_H_

#include <cstdint>
#include <utility>

#include "attention/bilevel_routing/bilevel_routing_kernel.h"
#include "layers/depthwise_conv.h"
#include "layers/forward_context.h"
#include "layers/linear.h"

namespace tessera {

// How a map is cut into regions, region_height x region_width tokens each, those at the right and
// bottom cut off by the map's border; how many of them a region attends to; and the factor of the
// logits.
struct Routing {
  int64_t num_heads = 1;
  int64_t region_height = 1;
  int64_t region_width = 1;
  int64_t topk = 1;
  float scale = 1.0f;
};

// qkv [B, H, W, 3C], f32 or bf16 -> i32 [B, regions, topk]: for each region r those with the
// largest q_r k_j, descending, where q_r and k_j are the means of queries and keys over the tokens
// of a region, all heads together; the lower index first where they are equal. No gradient flows.
Tensor RouteRegions(const Tensor& qkv, const Routing& routing);

// A depthwise convolution, stride 1, that is added to the result of attention: locally enhanced
// positional encoding (Dong et al., arXiv 2107.00652).
struct Lepe {
  Tensor x;       // [B, H, W, C] of qkv's dtype; undefined: v
  Tensor weight;  // f32 [C, 1, K, K]
  Tensor bias;    // f32 [C]
};

// For every token of region r, and each head,
//   out = softmax(scale q k^T) v + lepe,
// over all tokens of the regions routes[r]. qkv [B, H, W, 3C], f32 or bf16: q, k and v, each with
// channels (head, head_dim); routes i32 [B, regions, topk], distinct within a row;
// out [B, H, W, C] of qkv's dtype. Positions of a region past the border of the map count as keys
// and values of zero. Saves qkv and the routes; logits are computed again in the backward pass.
Tensor RoutedAttention(const Tensor& qkv, const Tensor& routes, const Lepe& lepe,
                       const Routing& routing);

namespace attention {

// Bi-level routing attention with LePE of v, 5 x 5. Parameters, with C = dim: lepe.weight [C, 1, 5,
// 5], lepe.bias [C], and the projections qkv.qkv.{weight [3C, C], bias [3C]} and wo.{weight [C, C],
// bias [C]}; with `pointwise` qkv_linear.{weight [3C, C, 1, 1], bias} and output_linear.{weight
// [C, C, 1, 1], bias}. Logits are scaled by C^-1/2. The chosen regions can be tapped as "router".
//
// A map is cut into n_win x n_win regions, whatever its size. If its sides are no multiples of
// n_win, it is padded with zeros at the bottom and right, before the projection, and the result cut
// off; no position is masked. With `pointwise`, regions have sides of H / n_win and W / n_win,
// rounded down, and those at the right and bottom are padded after the projection.
class BilevelRoutingAttention : public Module {
 public:
  struct Options {
    int64_t dim;
    int64_t num_heads;
    int64_t n_win;
    int64_t topk;  // at most all regions
    bool pointwise = false;
  };
  explicit BilevelRoutingAttention(const Options& options);
  // x [B, H, W, C], f32 or bf16 -> [B, H, W, C] of `out_dtype`; q, k and v are of x's dtype.
  Tensor Forward(const Tensor& x, const ForwardContext& context, DType out_dtype) const;

  // The softmax weights that positions get, LePE aside; see attention/attention_map.h.
  Tensor AttentionMap(const Tensor& x) const;

 private:
  class Router : public Module {};

  // x, padded if need be, and how it is cut.
  std::pair<Tensor, Routing> Regions(const Tensor& x) const;

  Options options_;
  const layers::DepthwiseConv& lepe_;
  const layers::Linear& qkv_;
  const layers::Linear& out_;
  const Router& router_;
};

// Attention among all tokens of a map, with LePE, 5 x 5, of x. Parameters: qkv.weight [3C, C],
// proj.weight [C, C], proj.bias [C], lepe.weight [C, 1, 5, 5], lepe.bias [C]. With `pointwise`, the
// weights are [3C, C, 1, 1] and [C, C, 1, 1], and LePE is that of v.
class GlobalAttention : public Module {
 public:
  struct Options {
    int64_t dim;
    int64_t num_heads = 8;
    bool pointwise = false;
  };
  explicit GlobalAttention(const Options& options);
  Tensor Forward(const Tensor& x, DType out_dtype) const;

  // The softmax weights that positions get, LePE aside; see attention/attention_map.h.
  Tensor AttentionMap(const Tensor& x) const;

 private:
  Tensor Attend(const Tensor& qkv, const Lepe& lepe) const;

  Options options_;
  const layers::Linear& qkv_;
  const layers::Linear& proj_;
  const layers::DepthwiseConv& lepe_;
};

}  // namespace attention
}  // namespace tessera

#endif  // TESSERA_ATTENTION_BILEVEL_ROUTING_BILEVEL_ROUTING_H_
