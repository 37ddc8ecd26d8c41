#include "attention/channel/channel.h"

#include "autograd/tape.h"
#include "tensor/ops/cast/cast.h"
#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const ChannelAttentionArgs&)> channel_attention_forward(
    "channel_attention_forward");
constinit KernelSlot<void(const ChannelAttentionGradArgs&)> channel_attention_backward(
    "channel_attention_backward");

Tensor ChannelAttention(const Tensor& qkv, int64_t num_heads, ChannelAttentionVersion version,
                        DType dtype) {
  CHECK(qkv.rank() == 3 && IsFloat(qkv.dtype()) && num_heads > 0 &&
        qkv.dim(2) % (3 * num_heads) == 0)
      << "channel_attention: qkv " << Describe(qkv) << ", " << num_heads << " heads";
  const ChannelAttentionShape shape = {.batch = qkv.dim(0),
                                       .tokens = qkv.dim(1),
                                       .num_heads = num_heads,
                                       .head_dim = qkv.dim(2) / (3 * num_heads),
                                       .version = version};
  Tensor out =
      Tensor::Empty({shape.batch, shape.tokens, shape.channels()}, qkv.dtype(), qkv.device());
  if (out.numel() == 0) return ops::Cast(out, dtype);
  const Tensor attention = Tensor::Empty({shape.batch, num_heads, shape.head_dim, shape.head_dim},
                                         DType::kF32, qkv.device());
  channel_attention_forward(qkv.device(), ChannelAttentionArgs{.dtype = qkv.dtype(),
                                                               .shape = shape,
                                                               .qkv = qkv.raw(),
                                                               .attention = attention.data<float>(),
                                                               .out = out.raw()});
  out = ops::Cast(out, dtype);
  if (!NeedsGrad({&qkv})) return out;
  const Tensor kept = ops::Cast(qkv, dtype);
  Record("channel_attention", {&qkv}, {&out},
         [shape, qkv = kept.Detach(), attention](GradContext& g) {
           const Tensor d_qkv = Tensor::Empty(qkv.shape(), qkv.dtype(), qkv.device());
           channel_attention_backward(qkv.device(),
                                      ChannelAttentionGradArgs{.dtype = qkv.dtype(),
                                                               .shape = shape,
                                                               .qkv = qkv.raw(),
                                                               .attention = attention.data<float>(),
                                                               .d_out = g.out().raw(),
                                                               .d_qkv = d_qkv.raw()});
           g.Add(0, d_qkv);
         });
  return out;
}

namespace attention {

ChannelAttention::ChannelAttention(int64_t dim, int64_t num_heads, bool qkv_bias,
                                   ChannelAttentionVersion version)
    : qkv_(
          AddChild<layers::Linear>("qkv", dim, 3 * dim, layers::Linear::Options{.bias = qkv_bias})),
      proj_(AddChild<layers::Linear>("proj", dim, dim)),
      num_heads_(num_heads),
      version_(version) {}

Tensor ChannelAttention::Forward(const Tensor& x, DType dtype) const {
  CHECK_GE(x.rank(), 3) << "ChannelAttention: x " << Describe(x);
  const int64_t batch = x.dim(0), channels = x.dim(-1);
  const int64_t per_image = batch == 0 ? 0 : x.numel() / batch;
  const Tensor tokens = x.Reshape({batch, channels == 0 ? 0 : per_image / channels, channels});
  const Tensor qkv = qkv_.Forward(tokens, x.dtype(), dtype);
  const Tensor out = tessera::ChannelAttention(qkv, num_heads_, version_, dtype);
  return proj_.Forward(out, dtype).Reshape(x.shape());
}

}  // namespace attention
}  // namespace tessera
