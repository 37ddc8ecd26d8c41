#include "models/transnext.h"

#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "attention/aggregated/aggregated.h"
#include "autograd/ops/mean_pool.h"
#include "layers/conv_glu.h"
#include "layers/drop_path.h"
#include "models/run_stages.h"

namespace tessera {
namespace {

constexpr float kNormEps = 1e-6f;  // of blocks and stages; patch embeddings have the usual 1e-5
// Sums over fewer channels gain no time from bf16, and are too short for its rounding to average
// out.
constexpr int64_t kMinBf16Channels = 32;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

DType ComputeDType(int64_t channels, const ForwardContext& context) {
  return channels < kMinBf16Channels ? DType::kF32 : context.compute_dtype;
}

// Positions on a side of a stage's map, for images of this size.
int64_t MapSide(int64_t image_size, size_t stage) { return image_size / (int64_t{4} << stage); }

attention::AggregatedAttentionConfig AttentionOf(const TransNextConfig& c, size_t stage) {
  const int64_t reference = MapSide(c.pretrain_size > 0 ? c.pretrain_size : c.img_size, stage);
  const int64_t bias_side = c.is_extrapolation ? 0 : MapSide(c.img_size, stage);
  return {.dim = c.embed_dims[stage],
          .num_heads = c.num_heads[stage],
          .sr_ratio = c.sr_ratios[stage],
          .window = c.window_size[stage],
          .fixed_pool_size = c.fixed_pool_size,
          .reference = {reference, reference},
          .bias_map = {bias_side, bias_side}};
}

}  // namespace

// An overlapping strided convolution, and a norm.
class TransNext::PatchEmbed : public Module {
 public:
  PatchEmbed(int64_t in_dim, int64_t dim, bool first)
      : kernel_size_(first ? 7 : 3),
        stride_(first ? 4 : 2),
        proj_(AddChild<layers::Conv2d>("proj", in_dim, dim, kernel_size_,
                                       layers::Conv2d::Options{.weight_init = ConvInit(dim)})),
        norm_(AddChild<layers::LayerNorm>("norm", dim)) {}

  Tensor Forward(const Tensor& x, const ForwardContext& context) const {
    const int64_t pad = kernel_size_ / 2;
    const Tensor map = proj_.Forward(x, {stride_, pad, pad, pad, pad}, DType::kF32);
    Tensor y = norm_.Forward(map, DType::kF32);
    context.Tap(*this, y);
    return y;
  }

 private:
  Init ConvInit(int64_t dim) const {
    return Init::TruncatedNormal(
        std::sqrt(2.0 / static_cast<double>(kernel_size_ * kernel_size_ * dim)));
  }

  int64_t kernel_size_;
  int64_t stride_;
  layers::Conv2d& proj_;
  layers::LayerNorm& norm_;
};

class TransNext::Block : public Module {
 public:
  Block(const TransNextConfig& config, size_t stage, double drop_path_rate)
      : norm1_(AddChild<layers::LayerNorm>("norm1", config.embed_dims[stage], kNormEps)),
        attn_(AddChild<attention::AggregatedAttention>("attn", AttentionOf(config, stage))),
        drop_path1_(AddChild<layers::DropPath>("drop_path1", drop_path_rate)),
        norm2_(AddChild<layers::LayerNorm>("norm2", config.embed_dims[stage], kNormEps)),
        mlp_(AddChild<layers::ConvGlu>("mlp", config.embed_dims[stage], config.hidden_dim(stage))),
        drop_path2_(AddChild<layers::DropPath>("drop_path2", drop_path_rate)) {}

  Tensor Forward(const Tensor& x, const ForwardContext& context) const {
    const DType dtype = ComputeDType(x.dim(3), context);
    const Tensor z =
        drop_path1_.AddTo(x, Attend(norm1_.Forward(x, dtype), dtype, context), context);
    Tensor mixed = mlp_.Forward(norm2_.Forward(z, dtype));
    context.Tap(mlp_, mixed);
    return drop_path2_.AddTo(z, std::move(mixed), context);
  }

 private:
  Tensor Attend(const Tensor& x, DType dtype, const ForwardContext& context) const {
    context.TapAttention(attn_, x);
    Tensor attended = attn_.Forward(x, dtype);
    context.Tap(attn_, attended);
    return attended;
  }

  layers::LayerNorm& norm1_;
  attention::AggregatedAttention& attn_;
  layers::DropPath& drop_path1_;
  layers::LayerNorm& norm2_;
  layers::ConvGlu& mlp_;
  layers::DropPath& drop_path2_;
};

class TransNext::BlockList : public Module {
 public:
  // Rates of stochastic depth grow by `rate_step` from block to block.
  BlockList(const TransNextConfig& config, size_t stage, double first_rate, double rate_step) {
    for (int64_t i = 0; i < config.depths[stage]; ++i) {
      const double rate = first_rate + rate_step * static_cast<double>(i);
      blocks_.push_back(&AddChild<Block>(absl::StrCat(i), config, stage, rate));
    }
  }

  Tensor Forward(Tensor x, const ForwardContext& context) const {
    for (const Block* block : blocks_) {
      const auto forward = [block, context](const Tensor& in) {
        return block->Forward(in, context);
      };
      x = context.checkpoint_blocks ? Checkpoint(x, forward) : forward(x);
      context.Tap(*block, x);
    }
    return x;
  }

 private:
  std::vector<const Block*> blocks_;
};

TransNext::TransNext(const TransNextConfig& config) : config_(config) {
  int64_t num_blocks = 0;
  for (const int64_t depth : config.depths) num_blocks += depth;
  const double rate_step =
      num_blocks > 1 ? config.drop_path_rate / static_cast<double>(num_blocks - 1) : 0.0;
  int64_t block = 0;
  for (size_t s = 0; s < config.depths.size(); ++s) {
    const int64_t dim = config.embed_dims[s];
    const int64_t in_dim = s == 0 ? config.in_chans : config.embed_dims[s - 1];
    const std::string number = absl::StrCat(s + 1);
    Stage stage;
    stage.patch_embed = &AddChild<PatchEmbed>("patch_embed" + number, in_dim, dim, s == 0);
    stage.blocks = &AddChild<BlockList>("block" + number, config, s,
                                        rate_step * static_cast<double>(block), rate_step);
    stage.norm = &AddChild<layers::LayerNorm>("norm" + number, dim, kNormEps);
    stages_.push_back(stage);
    block += config.depths[s];
  }
  if (config.num_classes > 0) {
    head_ = &AddChild<layers::Linear>("head", config.embed_dims.back(), config.num_classes);
  }
}

Tensor TransNext::ForwardStage(size_t stage, const Tensor& x, const ForwardContext& context) const {
  CHECK(stage > 0 || (x.rank() == 4 && x.dim(3) == config_.in_chans && x.numel() > 0))
      << "TransNext: images " << x.shape() << ", expected [B, H, W, " << config_.in_chans << "]";
  const Stage& parts = stages_[stage];
  const Tensor embedded = parts.patch_embed->Forward(x, context);
  const bool last = stage + 1 == stages_.size();
  const Tensor map =
      parts.norm->Forward(parts.blocks->Forward(embedded, context),
                          last ? DType::kF32 : ComputeDType(embedded.dim(3), context));
  context.Tap(*parts.norm, map);
  return map;
}

std::vector<Tensor> TransNext::ForwardFeatures(const Tensor& images,
                                               const ForwardContext& context) const {
  std::vector<Tensor> maps;
  for (size_t s = 0; s < stages_.size(); ++s) {
    maps.push_back(ForwardStage(s, s == 0 ? images : maps.back(), context));
  }
  return maps;
}

Tensor TransNext::Forward(const Tensor& images, const ForwardContext& context) const {
  const Tensor x = RunStages(images, context, stages_.size(), [&](size_t s, const Tensor& map) {
    return ForwardStage(s, map, context);
  });
  const Tensor pooled = MeanPool(x);
  // The classifier is too small for bf16 to pay.
  return head_ == nullptr ? pooled : head_->Forward(pooled, DType::kF32);
}

std::optional<int64_t> TransNext::LayerOf(absl::string_view parameter) const {
  const std::vector<absl::string_view> parts = absl::StrSplit(parameter, '.');
  int64_t first_block = 1;
  for (size_t s = 0; s < config_.depths.size(); first_block += config_.depths[s++]) {
    const std::string number = absl::StrCat(s + 1);
    if (parts[0] == "patch_embed" + number) return s == 0 ? 0 : first_block;
    if (parts[0] == "norm" + number) return first_block + config_.depths[s] - 1;
    if (parts[0] != "block" + number) continue;
    int64_t block = 0;
    CHECK(absl::SimpleAtoi(parts[1], &block)) << parameter;
    return first_block + block;
  }
  return first_block;
}

std::vector<StageCost> TransNext::Costs(int64_t height, int64_t width) const {
  const TransNextConfig& c = config_;
  // Padded by half their size, the convolutions round up.
  int64_t h = CeilDiv(height, 4), w = CeilDiv(width, 4), in_dim = c.in_chans;
  std::vector<StageCost> costs;
  for (size_t s = 0; s < c.depths.size(); ++s) {
    const std::string number = absl::StrCat(s + 1);
    const int64_t kernel = s == 0 ? 49 : 9, stride = s == 0 ? 4 : 2;
    if (s > 0) {
      h = CeilDiv(h, 2);
      w = CeilDiv(w, 2);
    }
    const int64_t dim = c.embed_dims[s], depth = c.depths[s], tokens = h * w;
    const int64_t in = tokens * stride * stride * in_dim;
    costs.push_back({"patch_embed" + number,
                     {h, w, dim},
                     tokens * dim * in_dim * kernel,
                     tokens * dim + (s == 0 ? in : 0),
                     s == 0 ? 0 : in});

    const int64_t hidden = c.hidden_dim(s);
    const bool pools = c.sr_ratios[s] > 1;
    const GridSize grid = attention::AggregatedAttention(AttentionOf(c, s)).PooledGrid({h, w});
    const int64_t pooled = grid.height * grid.width;
    const int64_t slots = pools ? c.window_size[s] * c.window_size[s] : 0;
    // q, kv, sr and proj, or qkv and proj; then k and v of the pooled map.
    const int64_t projections = (pools ? 5 * tokens + 2 * pooled : 4 * tokens) * dim * dim;
    const int64_t attention = tokens * dim * (3 * slots + 2 * pooled);
    const int64_t unit = tokens * hidden * (3 * dim + 9);
    StageCost blocks{"block" + number, {h, w, dim}};
    blocks.macs = depth * (projections + attention + unit);
    // Inputs of the norms; then norm outputs, q, k, v, the map before pooling, the attention's
    // output, both halves of the gated unit.
    blocks.saved_f32 = depth * tokens * dim * 2;
    blocks.saved_compute = depth * tokens * ((pools ? 7 : 6) * dim + 2 * hidden);
    costs.push_back(blocks);
    costs.push_back({"norm" + number, {h, w, dim}, 0, tokens * dim, 0});
    in_dim = dim;
  }
  if (c.num_classes > 0) {
    costs.push_back({"head", {c.num_classes}, in_dim * c.num_classes, in_dim, 0});
  }
  return costs;
}

}  // namespace tessera
