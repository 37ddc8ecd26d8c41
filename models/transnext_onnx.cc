#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention/aggregated/position_bias.h"
#include "models/onnx/graph.h"
#include "models/transnext.h"
#include "tensor/ops/gelu_pool/pooled_axis.h"

namespace tessera {
namespace {

constexpr float kNormEps = 1e-6f;

// Of every position of a map to every pooled cell, [heads, N, P]: it depends on weights alone.
Tensor DensePositionBias(const PositionBias& bias, const GridSize& map) {
  const int64_t heads = bias.values.dim(0), keys = bias.key_offsets.numel();
  const int64_t per_head = bias.values.numel() / heads;
  Tensor dense = Tensor::Empty({heads, map.height * map.width, keys}, DType::kF32);
  float* out = dense.data<float>();
  for (int64_t h = 0; h < heads; ++h) {
    const float* of_head = bias.values.data<float>() + h * per_head;
    for (int64_t n = 0; n < map.height * map.width; ++n) {
      const int64_t query = n / map.width * bias.row_stride + n % map.width;
      for (int64_t j = 0; j < keys; ++j) {
        *out++ = of_head[bias.key_offsets.data<int64_t>()[j] + query];
      }
    }
  }
  return dense;
}

// ln(1 + exp(t)).
float Softplus(float t) { return t > 20 ? t : std::log1p(std::exp(t)); }

// The factors softplus(temperature) ln(number of keys in sight), [heads, N, 1].
Tensor QueryScales(const Tensor& temperature, const GridSize& map, int64_t window, int64_t pooled) {
  const int64_t heads = temperature.numel(), tokens = map.height * map.width, reach = window / 2;
  const auto seen = [&](int64_t at, int64_t size) {
    return std::min(size - 1, at + reach) - std::max<int64_t>(0, at - reach) + 1;
  };
  Tensor scales = Tensor::Empty({heads, tokens, 1}, DType::kF32);
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t n = 0; n < tokens; ++n) {
      const int64_t near =
          window == 0 ? 0 : seen(n / map.width, map.height) * seen(n % map.width, map.width);
      scales.data<float>()[h * tokens + n] =
          Softplus(temperature.data<float>()[h]) * std::log(static_cast<float>(near + pooled));
    }
  }
  return scales;
}

// Adaptive average pooling as a product, [N, P].
Tensor PoolingMatrix(const GridSize& map, const GridSize& pooled) {
  const int64_t cells = pooled.height * pooled.width;
  const Tensor matrix = Tensor::Zeros({map.height * map.width, cells}, DType::kF32);
  const PooledAxis rows = {map.height, pooled.height}, columns = {map.width, pooled.width};
  for (int64_t j = 0; j < cells; ++j) {
    const int64_t row = j / pooled.width, column = j % pooled.width;
    const int64_t area =
        (rows.End(row) - rows.Begin(row)) * (columns.End(column) - columns.Begin(column));
    for (int64_t y = rows.Begin(row); y < rows.End(row); ++y) {
      for (int64_t x = columns.Begin(column); x < columns.End(column); ++x) {
        matrix.data<float>()[(y * map.width + x) * cells + j] = 1.0f / static_cast<float>(area);
      }
    }
  }
  return matrix;
}

// -1e30 where a slot of the window lies outside of the map, [N, L].
Tensor OutsideMask(const GridSize& map, int64_t window) {
  const int64_t slots = window * window, reach = window / 2;
  const Tensor mask = Tensor::Zeros({map.height * map.width, slots}, DType::kF32);
  for (int64_t i = 0; i < mask.numel(); ++i) {
    const int64_t n = i / slots, o = i % slots;
    const int64_t y = n / map.width + o / window - reach, x = n % map.width + o % window - reach;
    const bool inside = y >= 0 && y < map.height && x >= 0 && x < map.width;
    mask.data<float>()[i] = inside ? 0.0f : -1e30f;
  }
  return mask;
}

GridSize PooledGrid(const TransNextConfig& config, size_t stage, const GridSize& map) {
  const int64_t ratio = config.sr_ratios[stage], fixed = config.fixed_pool_size;
  if (ratio == 1) return map;
  if (fixed > 0) return {fixed, fixed};
  return {std::max<int64_t>(1, map.height / ratio), std::max<int64_t>(1, map.width / ratio)};
}

// One attention module in its map.
class Attention {
 public:
  Attention(OnnxGraph& graph, std::string name, const TransNextConfig& config, size_t stage,
            const GridSize& map)
      : graph_(graph),
        name_(std::move(name)),
        map_(map),
        pooled_(PooledGrid(config, stage, map)),
        num_heads_(config.num_heads[stage]),
        window_(config.window_size[stage]),
        bias_(graph.Constant(DensePositionBias(Bias(config, stage), map))) {}

  // x [B, N, C] -> the same.
  OnnxValue Full(const OnnxValue& x) {
    std::vector<OnnxValue> qkv = graph_.Split(graph_.Linear(x, name_ + ".qkv"), 3);
    for (OnnxValue& part : qkv) part = graph_.SplitHeads(part, num_heads_);
    const OnnxValue q = ScaledQueries(graph_.Normalize(qkv[0]), /*window=*/0);
    const OnnxValue logits = graph_.Add(
        graph_.MatMul(q, graph_.Transpose(graph_.Normalize(qkv[1]), {0, 1, 3, 2})), bias_);
    const OnnxValue mixed = graph_.MatMul(graph_.Softmax(logits), qkv[2]);
    return graph_.Linear(graph_.MergeHeads(mixed), name_ + ".proj");
  }

  OnnxValue Aggregated(const OnnxValue& x) {
    const OnnxValue q =
        graph_.Normalize(graph_.SplitHeads(graph_.Linear(x, name_ + ".q"), num_heads_));
    const OnnxValue scaled = ScaledQueries(q, window_);
    const std::vector<OnnxValue> kv = KeysAndValues(x), pooled_kv = KeysAndValues(Pool(x));
    const std::vector<OnnxValue> near_keys = Neighbours(kv[0]), near_values = Neighbours(kv[1]);

    std::vector<OnnxValue> near;  // [B, heads, N, 1]
    for (const OnnxValue& keys : near_keys)
      near.push_back(graph_.SumLast(graph_.Mul(scaled, keys)));
    const int64_t slots = window_ * window_;
    const OnnxValue local_bias =
        graph_.Reshape(graph_.Weight(name_ + ".relative_pos_bias_local"), {num_heads_, 1, slots});
    const OnnxValue mask = graph_.Constant(OutsideMask(map_, window_));
    const OnnxValue local = graph_.Add(graph_.Add(graph_.Concat(near, 3), local_bias), mask);
    const OnnxValue far =
        graph_.Add(graph_.MatMul(scaled, graph_.Transpose(pooled_kv[0], {0, 1, 3, 2})), bias_);
    const OnnxValue weights = graph_.Softmax(graph_.Concat({local, far}, 3));

    const OnnxValue tokens =
        graph_.Add(graph_.Node("MatMul", {q, graph_.Weight(name_ + ".learnable_tokens")},
                               {-1, num_heads_, q.dim(2), slots}),
                   graph_.Weight(name_ + ".learnable_bias"));
    const OnnxValue near_weights = graph_.Add(graph_.Slice(weights, 3, 0, slots), tokens);
    OnnxValue out = graph_.MatMul(graph_.Slice(weights, 3, slots, weights.dim(3)), pooled_kv[1]);
    for (int64_t o = 0; o < slots; ++o) {
      out = graph_.Add(out, graph_.Mul(graph_.Slice(near_weights, 3, o, o + 1), near_values[o]));
    }
    return graph_.Linear(graph_.MergeHeads(out), name_ + ".proj");
  }

 private:
  PositionBias Bias(const TransNextConfig& config, size_t stage) const {
    const LogCpbWeights weights = {graph_.WeightTensor(name_ + ".cpb_fc1.weight"),
                                   graph_.WeightTensor(name_ + ".cpb_fc1.bias"),
                                   graph_.WeightTensor(name_ + ".cpb_fc2.weight"),
                                   graph_.WeightTensor(name_ + ".cpb_fc2.bias")};
    const auto square = [&](int64_t image_size) {
      const int64_t side = image_size / (int64_t{4} << stage);
      return GridSize{side, side};
    };
    const GridSize reference =
        square(config.pretrain_size > 0 ? config.pretrain_size : config.img_size);
    const GridSize from = square(config.img_size);
    if (config.is_extrapolation || from == map_) {
      return MakePositionBias(MakePositionBiasTables(map_, pooled_, reference, Device::kCpu),
                              weights);
    }
    return MakePositionBias(MakeResizedPositionBiasTables(from, PooledGrid(config, stage, from),
                                                          map_, pooled_, reference, Device::kCpu),
                            weights);
  }

  OnnxValue ScaledQueries(const OnnxValue& q, int64_t window) {
    const Tensor scales = QueryScales(graph_.WeightTensor(name_ + ".temperature"), map_, window,
                                      pooled_.height * pooled_.width);
    return graph_.Mul(graph_.Add(q, graph_.Weight(name_ + ".query_embedding")),
                      graph_.Constant(scales));
  }

  // Normalised keys, and values, [B, heads, tokens, d].
  std::vector<OnnxValue> KeysAndValues(const OnnxValue& x) {
    const std::vector<OnnxValue> kv = graph_.Split(graph_.Linear(x, name_ + ".kv"), 2);
    return {graph_.Normalize(graph_.SplitHeads(kv[0], num_heads_)),
            graph_.SplitHeads(kv[1], num_heads_)};
  }

  OnnxValue Pool(const OnnxValue& x) {
    const OnnxValue channels_first =
        graph_.Transpose(graph_.Gelu(graph_.Linear(x, name_ + ".sr")), {0, 2, 1});
    const OnnxValue pooled =
        graph_.MatMul(channels_first, graph_.Constant(PoolingMatrix(map_, pooled_)));
    return graph_.LayerNorm(graph_.Transpose(pooled, {0, 2, 1}), name_ + ".norm");
  }

  // What x [B, heads, N, d] holds at each slot of the window around a position, 0 outside.
  std::vector<OnnxValue> Neighbours(const OnnxValue& x) {
    const int64_t reach = window_ / 2, d = x.dim(3);
    const OnnxValue map = graph_.Reshape(x, {-1, num_heads_, map_.height, map_.width, d});
    const std::vector<int64_t> pads = {0, 0, reach, reach, 0, 0, 0, reach, reach, 0};
    const OnnxValue padded =
        graph_.Node("Pad", {map, graph_.Constant(Tensor::From<int64_t>({10}, pads))},
                    {-1, num_heads_, map_.height + 2 * reach, map_.width + 2 * reach, d});
    std::vector<OnnxValue> slots;
    for (int64_t y = 0; y < window_; ++y) {
      const OnnxValue rows = graph_.Slice(padded, 2, y, y + map_.height);
      for (int64_t column = 0; column < window_; ++column) {
        slots.push_back(graph_.Reshape(graph_.Slice(rows, 3, column, column + map_.width),
                                       {-1, num_heads_, map_.height * map_.width, d}));
      }
    }
    return slots;
  }

  OnnxGraph& graph_;
  std::string name_;
  GridSize map_;
  GridSize pooled_;
  int64_t num_heads_;
  int64_t window_;
  OnnxValue bias_;
};

// x [B, H, W, C].
OnnxValue ConvGlu(OnnxGraph& graph, const OnnxValue& x, const std::string& name) {
  const std::vector<OnnxValue> halves = graph.Split(graph.Linear(x, name + ".fc1"), 2);
  const OnnxValue conv = graph.Conv(graph.ToChannelsFirst(halves[0]), name + ".dwconv.dwconv",
                                    {.pads = {1, 1, 1, 1}, .depthwise = true});
  return graph.Linear(graph.Mul(graph.Gelu(graph.ToChannelsLast(conv)), halves[1]), name + ".fc2");
}

}  // namespace

absl::StatusOr<OnnxValue> TransNext::ToOnnx(OnnxGraph& graph, const OnnxValue& images) const {
  OnnxValue x = images;
  for (size_t s = 0; s < config_.depths.size(); ++s) {
    const std::string number = absl::StrCat(s + 1), embed = "patch_embed" + number;
    const int64_t pad = s == 0 ? 3 : 1;
    x = graph.Conv(s == 0 ? x : graph.ToChannelsFirst(x), embed + ".proj",
                   {.stride = s == 0 ? 4 : 2, .pads = {pad, pad, pad, pad}});
    x = graph.LayerNorm(graph.ToChannelsLast(x), embed + ".norm");
    const int64_t height = x.dim(1), width = x.dim(2), dim = x.dim(3);
    for (int64_t i = 0; i < config_.depths[s]; ++i) {
      const std::string block = absl::StrCat("block", number, ".", i);
      const OnnxValue normed =
          graph.Reshape(graph.LayerNorm(x, block + ".norm1", kNormEps), {-1, height * width, dim});
      Attention attention(graph, block + ".attn", config_, s, {height, width});
      const OnnxValue attended =
          config_.sr_ratios[s] > 1 ? attention.Aggregated(normed) : attention.Full(normed);
      x = graph.Add(x, graph.Reshape(attended, {-1, height, width, dim}));
      x = graph.Add(x,
                    ConvGlu(graph, graph.LayerNorm(x, block + ".norm2", kNormEps), block + ".mlp"));
    }
    x = graph.LayerNorm(x, "norm" + number, kNormEps);
  }
  x = graph.Mean(x, {1, 2});
  return config_.num_classes > 0 ? graph.Linear(x, "head") : x;
}

}  // namespace tessera
