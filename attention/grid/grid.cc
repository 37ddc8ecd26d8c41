#include "attention/grid/grid.h"

#include "attention/attention_map.h"
#include "autograd/tape.h"
#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const GridAttentionArgs&)> grid_attention_forward(
    "grid_attention_forward");
constinit KernelSlot<void(const GridAttentionGradArgs&)> grid_attention_backward(
    "grid_attention_backward");

namespace {

GridAttentionShape CheckedShape(const Tensor& qkv, const Tensor& bias,
                                const GridAttentionOptions& o) {
  const int64_t tokens = o.rows * o.columns;
  CHECK(qkv.rank() == 4 && IsFloat(qkv.dtype()) && o.num_heads > 0 && tokens > 0 &&
        qkv.dim(3) % (3 * o.num_heads) == 0 && qkv.dim(1) % o.rows == 0 &&
        qkv.dim(2) % o.columns == 0 && bias.dtype() == DType::kF32 &&
        bias.numel() == o.num_heads * tokens * tokens)
      << "grid_attention: qkv " << Describe(qkv) << ", bias " << Describe(bias) << ", "
      << o.num_heads << " heads, groups of " << o.rows << " x " << o.columns;
  return {.batch = qkv.dim(0),
          .height = qkv.dim(1),
          .width = qkv.dim(2),
          .num_heads = o.num_heads,
          .head_dim = qkv.dim(3) / (3 * o.num_heads),
          .rows = o.rows,
          .columns = o.columns,
          .partition = o.partition,
          .head_first = o.head_first};
}

}  // namespace

Tensor GridAttention(const Tensor& qkv, const Tensor& bias, const GridAttentionOptions& options) {
  const GridAttentionShape shape = CheckedShape(qkv, bias, options);
  Tensor out = Tensor::Empty({shape.batch, shape.height, shape.width, shape.channels()},
                             qkv.dtype(), qkv.device());
  if (out.numel() == 0) return out;
  grid_attention_forward(qkv.device(), GridAttentionArgs{.dtype = qkv.dtype(),
                                                         .shape = shape,
                                                         .qkv = qkv.raw(),
                                                         .bias = bias.data<float>(),
                                                         .out = out.raw()});
  Record("grid_attention", {&qkv, &bias}, {&out},
         [shape, qkv = qkv.Detach(), bias = bias.Detach()](GradContext& g) {
           const Tensor d_qkv = Tensor::Empty(qkv.shape(), qkv.dtype(), qkv.device());
           const Tensor d_bias = Tensor::Empty(bias.shape(), DType::kF32, qkv.device());
           grid_attention_backward(qkv.device(),
                                   GridAttentionGradArgs{.dtype = qkv.dtype(),
                                                         .shape = shape,
                                                         .qkv = qkv.raw(),
                                                         .bias = bias.data<float>(),
                                                         .d_out = g.out().raw(),
                                                         .d_qkv = d_qkv.raw(),
                                                         .d_bias = d_bias.data<float>()});
           g.Add(0, d_qkv);
           g.Add(1, d_bias);
         });
  return out;
}

namespace attention {
namespace {

layers::Linear::Options Xavier(int64_t in, int64_t out) {
  return {.weight_init = Init::XavierUniform(in, out)};
}

}  // namespace

GridAttention::GridAttention(int64_t dim, const Options& options)
    : options_(options.attention),
      qkv_(AddChild<layers::Linear>("qkv", dim, 3 * dim, Xavier(dim, 3 * dim))),
      proj_(AddChild<layers::Linear>("proj", dim, dim, Xavier(dim, dim))) {
  const RelativePositionShape shape = {.num_heads = options_.num_heads,
                                       .rows = options_.rows,
                                       .columns = options_.columns,
                                       .kind = options.table};
  if (options.mlp_hidden_dim > 0) {
    mlp_ = &AddChild<RelativePositionMlp>("rel_pos", shape, options.mlp_hidden_dim);
  } else {
    table_ = &AddChild<RelativePositionTable>("rel_pos", shape);
  }
}

Tensor GridAttention::Forward(const Tensor& x, const ForwardContext& context,
                              DType out_dtype) const {
  const Tensor bias = Bias(context);
  const Tensor qkv = qkv_.Forward(x, x.dtype());
  return proj_.Forward(tessera::GridAttention(qkv, bias, options_), out_dtype);
}

Tensor GridAttention::AttentionMap(const Tensor& x) const {
  const Tensor qkv = qkv_.Forward(x, DType::kF32), bias = Bias({});
  const int64_t width = options_.head_first ? x.dim(3) / options_.num_heads : x.dim(3);
  return NormalizeAttentionMap(AttentionReceived(
      qkv, 3, width, [&](const Tensor& in) { return tessera::GridAttention(in, bias, options_); }));
}

}  // namespace attention
}  // namespace tessera
