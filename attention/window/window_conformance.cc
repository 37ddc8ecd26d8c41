// Puts window attention, with windows of 7 x 7, under the conformance tests.
#include "attention/registry.h"
#include "attention/window/window.h"
#include "attention/window/window_ref.h"

namespace tessera {
namespace {

AttentionProblem WindowProblem(const AttentionSize& size) {
  const WindowAttentionShape shape = {.batch = size.batch,
                                      .height = size.height,
                                      .width = size.width,
                                      .num_heads = size.num_heads,
                                      .head_dim = size.head_dim,
                                      .window = 7};
  const int64_t channels = shape.channels();
  return {
      .inputs = {{"qkv", {shape.batch, shape.height, shape.width, 3 * channels}, false, 2.0},
                 {"qkv_bias", {3 * channels}, /*parameter=*/true}},
      .multiply_adds =
          2.0 * static_cast<double>(shape.tokens() * channels * shape.window * shape.window),
      .forward =
          [shape](const std::vector<Tensor>& in) {
            return WindowAttention(in[0], in[1], shape.num_heads, shape.window);
          },
      .reference = [shape](const std::vector<const double*>& in,
                           double* out) { WindowAttentionRef(shape, in[0], in[1], out); },
  };
}

REGISTER_ATTENTION(window, WindowProblem);

}  // namespace
}  // namespace tessera
