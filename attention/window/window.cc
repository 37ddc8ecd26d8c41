#include "attention/window/window.h"

#include "attention/attention_map.h"
#include "attention/window/window_kernel.h"
#include "autograd/tape.h"
#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const WindowAttentionArgs&)> window_attention_forward(
    "window_attention_forward");
constinit KernelSlot<void(const WindowAttentionGradArgs&)> window_attention_backward(
    "window_attention_backward");

namespace {

WindowAttentionShape CheckedShape(const Tensor& qkv, const Tensor& qkv_bias, int64_t num_heads,
                                  int64_t window) {
  CHECK(qkv.rank() == 4 && IsFloat(qkv.dtype()) && num_heads > 0 && window > 0 &&
        qkv.dim(3) % (3 * num_heads) == 0 &&
        (!qkv_bias.defined() || qkv_bias.numel() == qkv.dim(3)))
      << "window_attention: qkv " << Describe(qkv) << ", qkv_bias " << Describe(qkv_bias) << ", "
      << num_heads << " heads, window " << window;
  return {.batch = qkv.dim(0),
          .height = qkv.dim(1),
          .width = qkv.dim(2),
          .num_heads = num_heads,
          .head_dim = qkv.dim(3) / (3 * num_heads),
          .window = window};
}

float* FloatsOf(const Tensor& t) { return t.defined() ? t.data<float>() : nullptr; }

void Backward(const WindowAttentionShape& shape, const Tensor& qkv, const Tensor& bias,
              const GradContext& g) {
  const Tensor d_qkv = Tensor::Empty(qkv.shape(), qkv.dtype(), qkv.device());
  const Tensor d_bias =
      g.wants(1) ? Tensor::Empty(bias.shape(), DType::kF32, qkv.device()) : Tensor();
  window_attention_backward(qkv.device(),
                            WindowAttentionGradArgs{.dtype = qkv.dtype(),
                                                    .shape = shape,
                                                    .qkv = qkv.raw(),
                                                    .qkv_bias = FloatsOf(bias),
                                                    .d_out = g.out().raw(),
                                                    .d_qkv = d_qkv.raw(),
                                                    .d_padding_bias = FloatsOf(d_bias)});
  g.Add(0, d_qkv);
  if (g.wants(1)) g.Add(1, d_bias);
}

}  // namespace

Tensor WindowAttention(const Tensor& qkv, const Tensor& qkv_bias, int64_t num_heads,
                       int64_t window) {
  const WindowAttentionShape shape = CheckedShape(qkv, qkv_bias, num_heads, window);
  Tensor out = Tensor::Empty({shape.batch, shape.height, shape.width, shape.channels()},
                             qkv.dtype(), qkv.device());
  if (out.numel() == 0) return out;
  const bool padded = shape.height % window != 0 || shape.width % window != 0;
  const Tensor bias = padded ? qkv_bias : Tensor();
  window_attention_forward(qkv.device(), WindowAttentionArgs{.dtype = qkv.dtype(),
                                                             .shape = shape,
                                                             .qkv = qkv.raw(),
                                                             .qkv_bias = FloatsOf(bias),
                                                             .out = out.raw()});
  Record("window_attention", {&qkv, &bias}, {&out},
         [shape, qkv = qkv.Detach(), bias = bias.Detach()](GradContext& g) {
           Backward(shape, qkv, bias, g);
         });
  return out;
}

namespace attention {

WindowAttention::WindowAttention(int64_t dim, int64_t num_heads, int64_t window, bool qkv_bias)
    : qkv_(
          AddChild<layers::Linear>("qkv", dim, 3 * dim, layers::Linear::Options{.bias = qkv_bias})),
      proj_(AddChild<layers::Linear>("proj", dim, dim)),
      num_heads_(num_heads),
      window_(window) {}

Tensor WindowAttention::Forward(const Tensor& x, DType out_dtype) const {
  const Tensor qkv = qkv_.Forward(x, x.dtype());
  return proj_.Forward(tessera::WindowAttention(qkv, qkv_.bias(), num_heads_, window_), out_dtype);
}

Tensor WindowAttention::AttentionMap(const Tensor& x) const {
  const Tensor qkv = qkv_.Forward(x, DType::kF32);
  return NormalizeAttentionMap(AttentionReceived(qkv, 3, x.dim(3), [this](const Tensor& in) {
    return tessera::WindowAttention(in, qkv_.bias(), num_heads_, window_);
  }));
}

}  // namespace attention
}  // namespace tessera
