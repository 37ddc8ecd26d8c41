#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/status.h"
#include "models/maxvit.h"
#include "models/onnx/graph.h"

namespace tessera {
namespace {

// Padding of a convolution 3 x 3 on x [B, C, H, W]: TensorFlow's or symmetric.
std::array<int64_t, 4> Pads(const MaxVitConvConfig& config, const OnnxValue& x, int64_t stride) {
  if (config.padding != "same") return {1, 1, 1, 1};
  const auto total = [&](int64_t n) {
    return std::max<int64_t>(((n + stride - 1) / stride - 1) * stride + 3 - n, 0);
  };
  const int64_t rows = total(x.dim(2)), columns = total(x.dim(3));
  return {rows / 2, columns / 2, rows - rows / 2, columns - columns / 2};
}

OnnxValue NormAndActivation(OnnxGraph& graph, const OnnxValue& x, const MaxVitConvConfig& config,
                            const std::string& name) {
  const OnnxValue y = graph.BatchNorm(x, name, static_cast<float>(config.norm_eps));
  return config.act_layer == "silu" ? graph.Silu(y) : graph.GeluTanh(y);
}

// The mean of 2 x 2 pixels; those past an odd border count as zeros.
OnnxValue AveragePool(OnnxGraph& graph, const OnnxValue& x) {
  return graph.Node("AveragePool", {x},
                    {x.dim(0), x.dim(1), (x.dim(2) + 1) / 2, (x.dim(3) + 1) / 2},
                    {{"kernel_shape", std::vector<int64_t>{2, 2}},
                     {"strides", std::vector<int64_t>{2, 2}},
                     {"pads", std::vector<int64_t>{0, 0, x.dim(2) % 2, x.dim(3) % 2}},
                     {"count_include_pad", int64_t{1}}});
}

// x [B, C, H, W].
OnnxValue MbConv(OnnxGraph& graph, const OnnxValue& x, const MaxVitConvConfig& config,
                 int64_t stride, const std::string& name) {
  OnnxValue shortcut = stride == 1 ? x : AveragePool(graph, x);
  if (graph.Has(name + ".shortcut.expand.weight")) {
    shortcut = graph.Conv(shortcut, name + ".shortcut.expand", {});
  }
  OnnxValue y = graph.BatchNorm(x, name + ".pre_norm", static_cast<float>(config.norm_eps));
  y = NormAndActivation(graph, graph.Conv(y, name + ".conv1_1x1", {}), config, name + ".norm1");
  y = graph.Conv(y, name + ".conv2_kxk",
                 {.stride = stride, .pads = Pads(config, y, stride), .depthwise = true});
  y = NormAndActivation(graph, y, config, name + ".norm2");
  const OnnxValue mean = graph.Mean(y, {2, 3}, /*keep=*/true);
  const OnnxValue squeezed = graph.Silu(graph.Conv(mean, name + ".se.fc1", {}));
  y = graph.Mul(y, graph.Unary("Sigmoid", graph.Conv(squeezed, name + ".se.fc2", {})));
  return graph.Add(shortcut, graph.Conv(y, name + ".conv3_1x1", {}));
}

// The offsets of a window's tokens, as places in a table of (2 rows - 1) (2 columns - 1).
Tensor OffsetIndices(int64_t rows, int64_t columns, bool key_minus_query) {
  const int64_t tokens = rows * columns;
  Tensor indices = Tensor::Empty({tokens * tokens}, DType::kI64);
  for (int64_t i = 0; i < tokens * tokens; ++i) {
    int64_t q = i / tokens, k = i % tokens;
    if (key_minus_query) std::swap(q, k);
    const int64_t down = q / columns - k / columns + rows - 1;
    indices.data<int64_t>()[i] = down * (2 * columns - 1) + q % columns - k % columns + columns - 1;
  }
  return indices;
}

// sign(d) log(1 + |d|) of all offsets, query minus key.
Tensor LogOffsets(int64_t rows, int64_t columns) {
  Tensor offsets = Tensor::Empty({(2 * rows - 1) * (2 * columns - 1), 2}, DType::kF32);
  const auto scaled = [](int64_t d) {
    return static_cast<float>(std::copysign(std::log1p(std::abs(static_cast<double>(d))), d));
  };
  for (int64_t i = 0; i < offsets.dim(0); ++i) {
    offsets.data<float>()[2 * i] = scaled(i / (2 * columns - 1) - rows + 1);
    offsets.data<float>()[2 * i + 1] = scaled(i % (2 * columns - 1) - columns + 1);
  }
  return offsets;
}

// [heads, tokens, tokens].
OnnxValue PositionBias(OnnxGraph& graph, const MaxVitTransformerConfig& config, int64_t num_heads,
                       int64_t rows, int64_t columns, const std::string& name) {
  const int64_t entries = (2 * rows - 1) * (2 * columns - 1), tokens = rows * columns;
  OnnxValue table;  // [entries, heads]
  if (config.rel_pos_type == "mlp") {
    const OnnxValue hidden =
        graph.Linear(graph.Constant(LogOffsets(rows, columns)), name + ".mlp.fc1");
    table = graph.Linear(graph.Unary("Relu", hidden), name + ".mlp.fc2");
  } else {
    table = graph.Weight(name + ".relative_position_bias_table");
    if (config.rel_pos_type == "bias_tf") {
      table = graph.Transpose(graph.Reshape(table, {num_heads, entries}), {1, 0});
    }
  }
  const OnnxValue indices =
      graph.Constant(OffsetIndices(rows, columns, config.rel_pos_type == "bias_tf"));
  const OnnxValue bias = graph.Node("Gather", {table, indices}, {tokens * tokens, num_heads});
  return graph.Transpose(graph.Reshape(bias, {tokens, tokens, num_heads}), {2, 0, 1});
}

// q, k, v [B', heads, N, d] of tokens [B', N, C].
std::vector<OnnxValue> ProjectHeads(OnnxGraph& graph, const OnnxValue& tokens, int64_t num_heads,
                                    bool head_first, const std::string& name) {
  const OnnxValue qkv = graph.Linear(tokens, name + ".qkv");
  if (head_first) return graph.Split(graph.SplitHeads(qkv, num_heads), 3);
  std::vector<OnnxValue> parts = graph.Split(qkv, 3);
  for (OnnxValue& part : parts) part = graph.SplitHeads(part, num_heads);
  return parts;
}

// Pixels of x [B, H, W, C] spread evenly over the map -> [B', rows * columns, C], and back.
OnnxValue ToGrid(OnnxGraph& graph, const OnnxValue& x, int64_t rows, int64_t columns) {
  const OnnxValue cut =
      graph.Reshape(x, {-1, rows, x.dim(1) / rows, columns, x.dim(2) / columns, x.dim(3)});
  return graph.Reshape(graph.Transpose(cut, {0, 2, 4, 1, 3, 5}), {-1, rows * columns, x.dim(3)});
}
OnnxValue FromGrid(OnnxGraph& graph, const OnnxValue& x, int64_t rows, int64_t columns,
                   int64_t height, int64_t width) {
  const OnnxValue cut =
      graph.Reshape(x, {-1, height / rows, width / columns, rows, columns, x.dim(2)});
  return graph.Reshape(graph.Transpose(cut, {0, 3, 1, 4, 2, 5}), {-1, height, width, x.dim(2)});
}

// x [..., C], scaled if the weights say so.
OnnxValue LayerScale(OnnxGraph& graph, const OnnxValue& x, const std::string& name) {
  return graph.Has(name + ".gamma") ? graph.Mul(x, graph.Weight(name + ".gamma")) : x;
}

// x [B, H, W, C].
OnnxValue AttentionUnit(OnnxGraph& graph, const OnnxValue& x, const MaxVitTransformerConfig& config,
                        bool grid, const std::string& name) {
  const auto eps = static_cast<float>(config.norm_eps);
  const std::vector<int64_t>& size = grid ? config.grid_size : config.window_size;
  const int64_t rows = size[0], columns = size[1], num_heads = x.dim(3) / config.dim_head;
  const OnnxValue normed = graph.LayerNorm(x, name + ".norm1", eps);
  const OnnxValue tokens =
      grid ? ToGrid(graph, normed, rows, columns) : graph.ToWindows(normed, rows, columns);
  const std::vector<OnnxValue> qkv =
      ProjectHeads(graph, tokens, num_heads, config.head_first, name + ".attn");
  const OnnxValue bias =
      PositionBias(graph, config, num_heads, rows, columns, name + ".attn.rel_pos");
  const double scale = 1.0 / std::sqrt(static_cast<double>(config.dim_head));
  const OnnxValue mixed = graph.Linear(
      graph.MergeHeads(graph.Attention(qkv[0], qkv[1], qkv[2], scale, &bias)), name + ".attn.proj");
  const OnnxValue map = grid ? FromGrid(graph, mixed, rows, columns, x.dim(1), x.dim(2))
                             : graph.FromWindows(mixed, rows, columns, x.dim(1), x.dim(2));
  const OnnxValue z = graph.Add(x, LayerScale(graph, map, name + ".ls1"));
  const OnnxValue mlp = graph.Mlp(graph.LayerNorm(z, name + ".norm2", eps), name + ".mlp",
                                  config.act_layer == "gelu_tanh");
  return graph.Add(z, LayerScale(graph, mlp, name + ".ls2"));
}

}  // namespace

absl::StatusOr<OnnxValue> MaxVit::ToOnnx(OnnxGraph& graph, const OnnxValue& images) const {
  RETURN_IF_ERROR(CheckImageSize(images.dim(2), images.dim(3)));
  const MaxVitConvConfig& conv = config_.conv_cfg;
  const MaxVitTransformerConfig& transformer = config_.transformer_cfg;
  OnnxValue x = graph.Conv(images, "stem.conv1", {.stride = 2, .pads = Pads(conv, images, 2)});
  x = graph.Conv(NormAndActivation(graph, x, conv, "stem.norm1"), "stem.conv2",
                 {.pads = {1, 1, 1, 1}});
  for (size_t s = 0; s < config_.depths.size(); ++s) {
    for (int64_t i = 0; i < config_.depths[s]; ++i) {
      const std::string block = absl::StrCat("stages.", s, ".blocks.", i);
      x = graph.ToChannelsLast(MbConv(graph, x, conv, i == 0 ? 2 : 1, block + ".conv"));
      x = AttentionUnit(graph, x, transformer, /*grid=*/false, block + ".attn_block");
      x = AttentionUnit(graph, x, transformer, /*grid=*/true, block + ".attn_grid");
      x = graph.ToChannelsFirst(x);
    }
  }
  const auto eps = static_cast<float>(transformer.norm_eps);
  x = graph.ToChannelsLast(x);
  if (config_.head_hidden_size == 0) x = graph.LayerNorm(x, "norm", eps);
  x = graph.Mean(x, {1, 2});
  if (config_.head_hidden_size > 0) {
    x = graph.LayerNorm(x, "head.norm", eps);
    x = graph.Unary("Tanh", graph.Linear(x, "head.pre_logits.fc"));
  }
  return config_.num_classes > 0 ? graph.Linear(x, "head.fc") : x;
}

}  // namespace tessera
