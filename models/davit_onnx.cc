#include <cmath>

#include "absl/strings/str_cat.h"
#include "models/davit.h"
#include "models/onnx/graph.h"

namespace tessera {
namespace {

int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// x + act(dwconv(x)), x [B, C, H, W].
OnnxValue PositionalConv(OnnxGraph& graph, const OnnxValue& x, const std::string& name, bool act) {
  const OnnxValue conv = graph.Conv(x, name + ".proj", {.pads = {1, 1, 1, 1}, .depthwise = true});
  return graph.Add(x, act ? graph.Gelu(conv) : conv);
}

// x [B, H, W, C].
OnnxValue WindowAttention(OnnxGraph& graph, const OnnxValue& x, const std::string& name,
                          int64_t num_heads, int64_t window) {
  const int64_t height = RoundUp(x.dim(1), window), width = RoundUp(x.dim(2), window);
  const OnnxValue tokens = graph.ToWindows(graph.PadMap(x, height, width), window, window);
  std::vector<OnnxValue> qkv = graph.Split(graph.Linear(tokens, name + ".qkv"), 3);
  for (OnnxValue& part : qkv) part = graph.SplitHeads(part, num_heads);
  const double scale = 1.0 / std::sqrt(static_cast<double>(qkv[0].dim(-1)));
  const OnnxValue mixed = graph.MergeHeads(graph.Attention(qkv[0], qkv[1], qkv[2], scale));
  const OnnxValue out = graph.Linear(mixed, name + ".proj");
  return graph.CropMap(graph.FromWindows(out, window, window, height, width), x.dim(1), x.dim(2));
}

// The same shape; version 1 or 2 of the formula in attention/channel/channel.h.
OnnxValue ChannelAttention(OnnxGraph& graph, const OnnxValue& x, const std::string& name,
                           int64_t num_heads, bool version_2) {
  const int64_t tokens = x.dim(1) * x.dim(2);
  const OnnxValue flat = graph.Reshape(x, {-1, tokens, x.dim(3)});
  std::vector<OnnxValue> qkv = graph.Split(graph.Linear(flat, name + ".qkv"), 3);
  for (OnnxValue& part : qkv) part = graph.SplitHeads(part, num_heads);
  const OnnxValue &left = version_2 ? qkv[0] : qkv[1], &right = version_2 ? qkv[1] : qkv[2],
                  &values = version_2 ? qkv[2] : qkv[0];
  const double length = static_cast<double>(version_2 ? tokens : left.dim(-1));
  const std::vector<int64_t> swap = {0, 1, 3, 2};
  const OnnxValue logits =
      graph.MatMul(graph.Transpose(graph.Scale(left, 1.0 / std::sqrt(length)), swap), right);
  const OnnxValue mixed = graph.MatMul(values, graph.Transpose(graph.Softmax(logits), swap));
  const OnnxValue out = graph.Linear(graph.MergeHeads(mixed), name + ".proj");
  return graph.Reshape(out, {-1, x.dim(1), x.dim(2), x.dim(3)});
}

// x [B, C, H, W].
OnnxValue Block(OnnxGraph& graph, const OnnxValue& x, const DaVitConfig& config, int64_t num_heads,
                bool spatial, const std::string& name) {
  const OnnxValue a =
      graph.ToChannelsLast(PositionalConv(graph, x, name + ".cpe1", config.cpe_act));
  const OnnxValue normed = graph.LayerNorm(a, name + ".norm1");
  const OnnxValue attended =
      spatial ? WindowAttention(graph, normed, name + ".attn", num_heads, config.window_size)
              : ChannelAttention(graph, normed, name + ".attn", num_heads, config.channel_attn_v2);
  const OnnxValue sum = graph.ToChannelsFirst(graph.Add(a, attended));
  const OnnxValue z = PositionalConv(graph, sum, name + ".cpe2", config.cpe_act);
  if (!config.ffn) return z;
  const OnnxValue tokens = graph.ToChannelsLast(z);
  const OnnxValue mixed = graph.Mlp(graph.LayerNorm(tokens, name + ".norm2"), name + ".mlp");
  return graph.ToChannelsFirst(graph.Add(tokens, mixed));
}

OnnxValue Downsample(OnnxGraph& graph, const OnnxValue& x, int64_t kernel_size,
                     const std::string& name) {
  const OnnxValue normed =
      graph.ToChannelsFirst(graph.LayerNorm(graph.ToChannelsLast(x), name + ".norm"));
  const std::array<int64_t, 4> pads = kernel_size == 2
                                          ? std::array<int64_t, 4>{0, 0, x.dim(2) % 2, x.dim(3) % 2}
                                          : std::array<int64_t, 4>{1, 1, 1, 1};
  return graph.Conv(normed, name + ".conv", {.stride = 2, .pads = pads});
}

}  // namespace

absl::StatusOr<OnnxValue> DaVit::ToOnnx(OnnxGraph& graph, const OnnxValue& images) const {
  const int64_t bottom = RoundUp(images.dim(2), 4) - images.dim(2);
  const int64_t right = RoundUp(images.dim(3), 4) - images.dim(3);
  OnnxValue x =
      graph.Conv(images, "stem.conv", {.stride = 4, .pads = {3, 3, 3 + bottom, 3 + right}});
  x = graph.ToChannelsFirst(graph.LayerNorm(graph.ToChannelsLast(x), "stem.norm"));
  for (size_t s = 0; s < config_.depths.size(); ++s) {
    const std::string stage = absl::StrCat("stages.", s);
    if (s > 0) x = Downsample(graph, x, config_.down_kernel_size, stage + ".downsample");
    for (int64_t i = 0; i < config_.depths[s]; ++i) {
      for (size_t j = 0; j < config_.attn_types.size(); ++j) {
        const std::string& type = config_.attn_types[j];
        const std::string block =
            config_.named_blocks ? absl::StrCat(type, "_block") : absl::StrCat(j);
        x = Block(graph, x, config_, config_.num_heads[s], type == "spatial",
                  absl::StrCat(stage, ".blocks.", i, ".", block));
      }
    }
  }
  x = graph.ToChannelsLast(x);
  if (config_.head_norm_first) x = graph.LayerNorm(x, "norm_pre");
  x = graph.Mean(x, {1, 2});
  if (!config_.head_norm_first) x = graph.LayerNorm(x, "head.norm");
  return config_.num_classes > 0 ? graph.Linear(x, "head.fc") : x;
}

}  // namespace tessera
