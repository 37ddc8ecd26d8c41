#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "models/biformer.h"
#include "models/onnx/graph.h"

namespace tessera {
namespace {

constexpr float kLayerNormEps = 1e-6f;
constexpr float kBatchNormEps = 1e-5f;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A depthwise convolution 5 x 5 of x [B, H, W, C].
OnnxValue Lepe(OnnxGraph& graph, const OnnxValue& x, const std::string& name) {
  return graph.ToChannelsLast(graph.Conv(graph.ToChannelsFirst(x), name + ".lepe",
                                         {.pads = {2, 2, 2, 2}, .depthwise = true}));
}

OnnxValue GlobalAttention(OnnxGraph& graph, const OnnxValue& x, const std::string& name,
                          bool pointwise) {
  constexpr int64_t kNumHeads = 8;
  const std::vector<OnnxValue> qkv = graph.Split(graph.Linear(x, name + ".qkv"), 3);
  std::vector<OnnxValue> heads;
  for (const OnnxValue& part : qkv) {
    const OnnxValue tokens = graph.Reshape(part, {-1, x.dim(1) * x.dim(2), x.dim(3)});
    heads.push_back(graph.SplitHeads(tokens, kNumHeads));
  }
  const double scale = 1.0 / std::sqrt(static_cast<double>(heads[0].dim(-1)));
  const OnnxValue mixed = graph.MergeHeads(graph.Attention(heads[0], heads[1], heads[2], scale));
  const OnnxValue map = graph.Reshape(mixed, {-1, x.dim(1), x.dim(2), x.dim(3)});
  return graph.Linear(graph.Add(map, Lepe(graph, pointwise ? qkv[2] : x, name)), name + ".proj");
}

// A map cut into regions of height x width, from [B, H, W, C] to [B, regions, tokens, C].
struct Regions {
  int64_t height, width, rows, columns;

  OnnxValue Cut(OnnxGraph& graph, const OnnxValue& map) const {
    const OnnxValue padded = graph.PadMap(map, rows * height, columns * width);
    return graph.Reshape(graph.ToWindows(padded, height, width),
                         {-1, rows * columns, height * width, map.dim(3)});
  }
  // Means over the tokens of each region that lie in a map of map_height x map_width.
  OnnxValue Means(OnnxGraph& graph, const OnnxValue& regions, int64_t map_height,
                  int64_t map_width) const {
    const OnnxValue mean = graph.Mean(regions, {2});
    const Tensor weights = Tensor::Empty({rows * columns, 1}, DType::kF32);
    for (int64_t r = 0; r < rows * columns; ++r) {
      const int64_t inside = std::min(height, map_height - r / columns * height) *
                             std::min(width, map_width - r % columns * width);
      weights.data<float>()[r] = static_cast<float>(height * width) / static_cast<float>(inside);
    }
    return graph.Mul(mean, graph.Constant(weights));
  }
};

// For each region the tokens [B * regions, topk * tokens, C] of those that it attends to.
OnnxValue Gather(OnnxGraph& graph, const OnnxValue& regions, const OnnxValue& routes) {
  const int64_t count = regions.dim(1), tokens = regions.dim(2), channels = regions.dim(3);
  const int64_t topk = routes.dim(2);
  const OnnxValue flat = graph.Reshape(regions, {-1, count, tokens * channels});
  const OnnxValue gathered =
      graph.Node("GatherND", {flat, graph.Reshape(routes, {-1, count, topk, 1})},
                 {-1, count, topk, tokens * channels}, {{"batch_dims", int64_t{1}}});
  return graph.Reshape(gathered, {-1, topk * tokens, channels});
}

OnnxValue RoutedAttention(OnnxGraph& graph, const OnnxValue& in, const std::string& name,
                          int64_t num_heads, int64_t n_win, int64_t topk, bool pointwise) {
  const int64_t height = in.dim(1), width = in.dim(2), channels = in.dim(3);
  // Padded before the projection, or regions of a side rounded down, padded after it.
  const int64_t side_y = pointwise ? std::max<int64_t>(1, height / n_win) : CeilDiv(height, n_win);
  const int64_t side_x = pointwise ? std::max<int64_t>(1, width / n_win) : CeilDiv(width, n_win);
  const Regions regions = {side_y, side_x, pointwise ? CeilDiv(height, side_y) : n_win,
                           pointwise ? CeilDiv(width, side_x) : n_win};
  const int64_t padded_height = regions.rows * side_y, padded_width = regions.columns * side_x;
  const OnnxValue x = pointwise ? in : graph.PadMap(in, padded_height, padded_width);
  const std::vector<OnnxValue> maps =
      graph.Split(graph.Linear(x, name + (pointwise ? ".qkv_linear" : ".qkv.qkv")), 3);
  std::vector<OnnxValue> qkv;
  for (const OnnxValue& map : maps) qkv.push_back(regions.Cut(graph, map));

  const OnnxValue mean_q = regions.Means(graph, qkv[0], x.dim(1), x.dim(2));
  const OnnxValue mean_k = regions.Means(graph, qkv[1], x.dim(1), x.dim(2));
  const OnnxValue affinity = graph.MatMul(mean_q, graph.Transpose(mean_k, {0, 2, 1}));
  const OnnxValue routes =
      graph.TopKIndices(affinity, std::min(topk, regions.rows * regions.columns));
  const OnnxValue q = graph.Reshape(qkv[0], {-1, side_y * side_x, channels});
  const double scale = 1.0 / std::sqrt(static_cast<double>(channels));
  const OnnxValue mixed = graph.MergeHeads(graph.Attention(
      graph.SplitHeads(q, num_heads), graph.SplitHeads(Gather(graph, qkv[1], routes), num_heads),
      graph.SplitHeads(Gather(graph, qkv[2], routes), num_heads), scale));
  const OnnxValue map = graph.CropMap(
      graph.FromWindows(mixed, side_y, side_x, padded_height, padded_width), x.dim(1), x.dim(2));
  const OnnxValue out = graph.Linear(graph.Add(map, Lepe(graph, maps[2], name)),
                                     name + (pointwise ? ".output_linear" : ".wo"));
  return graph.CropMap(out, height, width);
}

// x [B, C, H, W].
OnnxValue Halve(OnnxGraph& graph, OnnxValue x, const BiFormerConfig& config, size_t stage) {
  const std::string name = absl::StrCat("downsample_layers.", stage, ".");
  const OnnxConv halve = {.stride = 2, .pads = {1, 1, 1, 1}};
  if (config.layout != "biformer") {
    if (stage == 0) {
      return graph.BatchNorm(graph.Conv(x, name + "0", {.stride = 4}), name + "1", kBatchNormEps);
    }
    return graph.Conv(graph.BatchNorm(x, name + "0", kBatchNormEps), name + "1", {.stride = 2});
  }
  if (stage > 0)
    return graph.BatchNorm(graph.Conv(x, name + "0", halve), name + "1", kBatchNormEps);
  x = graph.Gelu(graph.BatchNorm(graph.Conv(x, name + "0", halve), name + "1", kBatchNormEps));
  return graph.BatchNorm(graph.Conv(x, name + "3", halve), name + "4", kBatchNormEps);
}

// x [B, H, W, C].
OnnxValue Block(OnnxGraph& graph, OnnxValue x, const BiFormerConfig& config, size_t stage,
                const std::string& name) {
  const bool pointwise = config.layout == "stl_nchw", is_biformer = config.layout == "biformer";
  if (is_biformer) {
    const OnnxValue position = graph.Conv(graph.ToChannelsFirst(x), name + ".pos_embed",
                                          {.pads = {1, 1, 1, 1}, .depthwise = true});
    x = graph.Add(x, graph.ToChannelsLast(position));
  }
  const OnnxValue normed = graph.LayerNorm(x, name + ".norm1", kLayerNormEps);
  const OnnxValue attended =
      config.topks[stage] < 0
          ? GlobalAttention(graph, normed, name + ".attn", pointwise)
          : RoutedAttention(graph, normed, name + ".attn",
                            config.embed_dim[stage] / config.head_dim, config.n_win[stage],
                            config.topks[stage], pointwise);
  x = graph.Add(x, attended);
  const OnnxValue hidden =
      graph.Gelu(graph.Linear(graph.LayerNorm(x, name + ".norm2", kLayerNormEps), name + ".mlp.0"));
  return graph.Add(x, graph.Linear(hidden, name + (is_biformer ? ".mlp.3" : ".mlp.2")));
}

}  // namespace

absl::StatusOr<OnnxValue> BiFormer::ToOnnx(OnnxGraph& graph, const OnnxValue& images) const {
  if (config_.extra_norms) {
    return absl::UnimplementedError(
        "a BiFormer with extra_norms, whose output is a map of every stage, can not be written as "
        "ONNX yet");
  }
  OnnxValue x = images;
  for (size_t s = 0; s < config_.depth.size(); ++s) {
    x = graph.ToChannelsLast(Halve(graph, x, config_, s));
    const std::string stage =
        absl::StrCat("stages.", s, config_.layout == "biformer" ? "." : ".blocks.");
    for (int64_t i = 0; i < config_.depth[s]; ++i) {
      x = Block(graph, x, config_, s, absl::StrCat(stage, i));
    }
    if (s + 1 < config_.depth.size()) x = graph.ToChannelsFirst(x);
  }
  x = graph.Mean(graph.BatchNorm(graph.ToChannelsFirst(x), "norm", kBatchNormEps), {2, 3});
  return head_ == nullptr ? x : graph.Linear(x, "head");
}

}  // namespace tessera
