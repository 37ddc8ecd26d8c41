#include "models/davit.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "attention/channel/channel.h"
#include "attention/window/window.h"
#include "autograd/ops/dropout.h"
#include "autograd/ops/mean_pool.h"
#include "core/random.h"
#include "layers/drop_path.h"
#include "layers/mlp.h"
#include "layers/positional_conv.h"
#include "models/run_stages.h"

namespace tessera {
namespace {

constexpr int64_t kStemStride = 4;
// Logits of channel attention are sums over all tokens. On maps of this size or more they are so
// large that rounding operands to bf16 would change the softmax: there they are made in f32.
constexpr int64_t kExactTokens = 512;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One attention over windows or channels, and an MLP, each behind a positional convolution.
class DaVitBlock : public Module {
 public:
  DaVitBlock(const DaVitConfig& config, bool spatial, int64_t dim, int64_t num_heads,
             double drop_path_rate);
  Tensor Forward(const Tensor& x, const ForwardContext& context) const;

 private:
  Tensor Attend(const Tensor& x, DType dtype, const ForwardContext& context) const;

  layers::PositionalConv& cpe1_;
  layers::LayerNorm& norm1_;
  attention::WindowAttention* window_ = nullptr;
  attention::ChannelAttention* channel_ = nullptr;
  layers::DropPath& drop_path1_;
  layers::PositionalConv& cpe2_;
  layers::LayerNorm* norm2_ = nullptr;
  layers::Mlp* mlp_ = nullptr;
  layers::DropPath& drop_path2_;
};

DaVitBlock::DaVitBlock(const DaVitConfig& config, bool spatial, int64_t dim, int64_t num_heads,
                       double drop_path_rate)
    : cpe1_(AddChild<layers::PositionalConv>("cpe1", dim, config.cpe_act)),
      norm1_(AddChild<layers::LayerNorm>("norm1", dim)),
      window_(spatial ? &AddChild<attention::WindowAttention>("attn", dim, num_heads,
                                                              config.window_size, config.qkv_bias)
                      : nullptr),
      channel_(spatial ? nullptr
                       : &AddChild<attention::ChannelAttention>(
                             "attn", dim, num_heads, config.qkv_bias,
                             config.channel_attn_v2 ? ChannelAttentionVersion::kQueriesTimesKeys
                                                    : ChannelAttentionVersion::kKeysTimesValues)),
      drop_path1_(AddChild<layers::DropPath>("drop_path1", drop_path_rate)),
      cpe2_(AddChild<layers::PositionalConv>("cpe2", dim, config.cpe_act)),
      norm2_(config.ffn ? &AddChild<layers::LayerNorm>("norm2", dim) : nullptr),
      mlp_(config.ffn
               ? &AddChild<layers::Mlp>("mlp", dim, static_cast<int64_t>(dim * config.mlp_ratio))
               : nullptr),
      drop_path2_(AddChild<layers::DropPath>("drop_path2", drop_path_rate)) {}

Tensor DaVitBlock::Attend(const Tensor& x, DType dtype, const ForwardContext& context) const {
  const auto attend = [&](const auto& module) {
    context.TapAttention(module, x);
    Tensor attended = module.Forward(x, dtype);
    context.Tap(module, attended);
    return attended;
  };
  return window_ != nullptr ? attend(*window_) : attend(*channel_);
}

Tensor DaVitBlock::Forward(const Tensor& x, const ForwardContext& context) const {
  const DType dtype = context.compute_dtype;
  const bool exact = channel_ != nullptr && x.dim(1) * x.dim(2) >= kExactTokens;
  const Tensor a = cpe1_.Forward(x);
  Tensor attended = Attend(norm1_.Forward(a, exact ? DType::kF32 : dtype), dtype, context);
  const Tensor z = cpe2_.Forward(drop_path1_.AddTo(a, std::move(attended), context));
  if (mlp_ == nullptr) return z;
  Tensor mixed = mlp_->Forward(norm2_->Forward(z, dtype));
  context.Tap(*mlp_, mixed);
  return drop_path2_.AddTo(z, std::move(mixed), context);
}

// Norm and a strided convolution that halves the map.
class Downsample : public Module {
 public:
  Downsample(int64_t in_dim, int64_t dim, int64_t kernel_size)
      : norm_(AddChild<layers::LayerNorm>("norm", in_dim)),
        conv_(AddChild<layers::Conv2d>("conv", in_dim, dim, kernel_size)),
        kernel_size_(kernel_size) {}

  Tensor Forward(const Tensor& x, const ForwardContext& context) const {
    // Kernel 2 pads odd sizes at the right and bottom, kernel 3 pads every side by one; both after
    // the norm, so that padding is zero.
    const Conv2dGeometry geometry = kernel_size_ == 2
                                        ? Conv2dGeometry{2, 0, 0, x.dim(1) % 2, x.dim(2) % 2}
                                        : Conv2dGeometry{2, 1, 1, 1, 1};
    Tensor y = conv_.Forward(norm_.Forward(x, context.compute_dtype), geometry, DType::kF32);
    context.Tap(*this, y);
    return y;
  }

 private:
  layers::LayerNorm& norm_;
  layers::Conv2d& conv_;
  int64_t kernel_size_;
};

// `blocks` of a stage: a list of pairs, each a list of blocks.
class BlockList : public Module {
 public:
  template <typename M, typename... Args>
  M& Append(std::string name, Args&&... args) {
    return AddChild<M>(std::move(name), std::forward<Args>(args)...);
  }
};

}  // namespace

class DaVitStage : public Module {
 public:
  // `in_dim` is 0 for the first stage, which has no downsampling. Pairs have the drop path rates
  // first_rate, first_rate + rate_step, ...
  DaVitStage(const DaVitConfig& config, int64_t stage, int64_t in_dim, double first_rate,
             double rate_step);
  Tensor Forward(Tensor x, const ForwardContext& context) const;

 private:
  Downsample* downsample_ = nullptr;
  std::vector<const DaVitBlock*> blocks_;
};

DaVitStage::DaVitStage(const DaVitConfig& config, int64_t stage, int64_t in_dim, double first_rate,
                       double rate_step) {
  const int64_t dim = config.embed_dims[stage];
  if (in_dim > 0) {
    downsample_ = &AddChild<Downsample>("downsample", in_dim, dim, config.down_kernel_size);
  }
  BlockList& blocks = AddChild<BlockList>("blocks");
  for (int64_t i = 0; i < config.depths[stage]; ++i) {
    BlockList& pair = blocks.Append<BlockList>(absl::StrCat(i));
    for (size_t j = 0; j < config.attn_types.size(); ++j) {
      const std::string& type = config.attn_types[j];
      const std::string name = config.named_blocks ? absl::StrCat(type, "_block") : absl::StrCat(j);
      blocks_.push_back(&pair.Append<DaVitBlock>(name, config, type == "spatial", dim,
                                                 config.num_heads[stage],
                                                 first_rate + rate_step * i));
    }
  }
}

Tensor DaVitStage::Forward(Tensor x, const ForwardContext& context) const {
  if (downsample_ != nullptr) x = downsample_->Forward(x, context);
  for (const DaVitBlock* block : blocks_) {
    const auto forward = [block, &context](const Tensor& in) {
      return block->Forward(in, context);
    };
    x = context.checkpoint_blocks ? Checkpoint(x, forward) : forward(x);
    context.Tap(*block, x);
  }
  context.Tap(*this, x);
  return x;
}

class DaVit::Stem : public Module {
 public:
  Stem(int64_t in_chans, int64_t dim)
      : conv_(AddChild<layers::Conv2d>("conv", in_chans, dim, 7)),
        norm_(AddChild<layers::LayerNorm>("norm", dim)) {}

  Tensor Forward(const Tensor& images, const ForwardContext& context) const {
    // The image is padded to multiples of the stride at the right and bottom, then by 3 all round.
    const auto rest = [](int64_t n) { return CeilDiv(n, kStemStride) * kStemStride - n; };
    const Conv2dGeometry geometry = {kStemStride, 3, 3, 3 + rest(images.dim(1)),
                                     3 + rest(images.dim(2))};
    Tensor y = norm_.Forward(conv_.Forward(images, geometry, DType::kF32), DType::kF32);
    context.Tap(*this, y);
    return y;
  }

 private:
  layers::Conv2d& conv_;
  layers::LayerNorm& norm_;
};

class DaVit::Head : public Module {
 public:
  explicit Head(const DaVitConfig& config) : drop_rate_(config.drop_rate) {
    const int64_t dim = config.embed_dims.back();
    if (!config.head_norm_first) norm_ = &AddChild<layers::LayerNorm>("norm", dim);
    if (config.num_classes > 0) fc_ = &AddChild<layers::Linear>("fc", dim, config.num_classes);
  }

  Tensor Forward(const Tensor& map, const ForwardContext& context) const {
    Tensor x = MeanPool(map);
    if (norm_ != nullptr) {
      x = norm_->Forward(x, DType::kF32);
      context.Tap(*norm_, x);
    }
    if (context.training && drop_rate_ > 0) {
      x = Dropout(x, drop_rate_,
                  RandomKey(context.seed, Purpose::kDropout, context.step,
                            HashString(full_name()) + static_cast<uint64_t>(context.first_sample)));
    }
    // The classifier is too small for bf16 to pay.
    return fc_ == nullptr ? x : fc_->Forward(x, DType::kF32);
  }

 private:
  layers::LayerNorm* norm_ = nullptr;
  layers::Linear* fc_ = nullptr;
  double drop_rate_;
};

DaVit::DaVit(const DaVitConfig& config) : config_(config) {
  stem_ = &AddChild<Stem>("stem", config.in_chans, config.embed_dims[0]);
  int64_t num_pairs = 0;
  for (const int64_t depth : config.depths) num_pairs += depth;
  const double rate_step = num_pairs > 1 ? config.drop_path_rate / (num_pairs - 1) : 0.0;
  BlockList& stages = AddChild<BlockList>("stages");
  int64_t pair = 0;
  for (size_t s = 0; s < config.depths.size(); ++s) {
    stages_.push_back(&stages.Append<DaVitStage>(absl::StrCat(s), config, s,
                                                 s == 0 ? 0 : config.embed_dims[s - 1],
                                                 rate_step * pair, rate_step));
    pair += config.depths[s];
  }
  if (config.head_norm_first) {
    norm_pre_ = &AddChild<layers::LayerNorm>("norm_pre", config.embed_dims.back());
  }
  head_ = &AddChild<Head>("head", config);
}

Tensor DaVit::Forward(const Tensor& images, const ForwardContext& context) const {
  CHECK(images.rank() == 4 && images.dim(3) == config_.in_chans && images.numel() > 0)
      << "DaVit: images " << images.shape() << ", expected [B, H, W, " << config_.in_chans << "]";
  Tensor x = RunStages(images, context, stages_.size(), [&](size_t s, const Tensor& map) {
    return stages_[s]->Forward(s == 0 ? stem_->Forward(map, context) : map, context);
  });
  if (norm_pre_ != nullptr) {
    x = norm_pre_->Forward(x, DType::kF32);
    context.Tap(*norm_pre_, x);
  }
  return head_->Forward(x, context);
}

std::optional<int64_t> DaVit::LayerOf(absl::string_view parameter) const {
  const std::vector<absl::string_view> parts = absl::StrSplit(parameter, '.');
  if (parts[0] == "stem") return 0;
  int64_t first_pair = 1;
  for (size_t s = 0; s < config_.depths.size(); first_pair += config_.depths[s++]) {
    if (parts[0] != "stages" || parts[1] != absl::StrCat(s)) continue;
    int64_t pair = 0;
    if (parts[2] == "blocks") CHECK(absl::SimpleAtoi(parts[3], &pair)) << parameter;
    return first_pair + pair;
  }
  return parts[0] == "norm_pre" ? first_pair : first_pair + 1;
}

std::vector<StageCost> DaVit::Costs(int64_t height, int64_t width) const {
  const DaVitConfig& c = config_;
  int64_t h = CeilDiv(height, kStemStride), w = CeilDiv(width, kStemStride);
  std::vector<StageCost> costs;
  const int64_t stem = h * w * c.embed_dims[0];
  costs.push_back({"stem",
                   {h, w, c.embed_dims[0]},
                   stem * 49 * c.in_chans,
                   0,
                   stem + height * width * c.in_chans});
  for (size_t s = 0; s < c.depths.size(); ++s) {
    const int64_t dim = c.embed_dims[s];
    const int64_t hidden = c.ffn ? static_cast<int64_t>(dim * c.mlp_ratio) : 0;
    const int64_t head_dim = dim / c.num_heads[s];
    StageCost cost{absl::StrCat("stages.", s), {}};
    if (s > 0) {
      const int64_t in = h * w * c.embed_dims[s - 1];
      h = CeilDiv(h, 2);
      w = CeilDiv(w, 2);
      cost.macs += h * w * dim * c.embed_dims[s - 1] * c.down_kernel_size * c.down_kernel_size;
      cost.saved_f32 += in;
      cost.saved_compute += in;
    }
    const int64_t tokens = h * w;
    const int64_t window = c.window_size * c.window_size;
    const int64_t padded = CeilDiv(h, c.window_size) * CeilDiv(w, c.window_size) * window;
    for (const std::string& type : c.attn_types) {
      const bool spatial = type == "spatial";
      // Padded positions of windows pass through the projections in the usual way of counting.
      const int64_t projected = spatial ? padded : tokens;
      const int64_t attention = 2 * projected * dim * (spatial ? window : head_dim);
      cost.macs += c.depths[s] * (2 * 9 * tokens * dim + projected * 4 * dim * dim + attention +
                                  2 * tokens * dim * hidden);
      // Inputs of the two convolutions and norms; then norm outputs, qkv, attention, MLP.
      cost.saved_f32 += c.depths[s] * tokens * dim * (c.ffn ? 4 : 3);
      cost.saved_compute += c.depths[s] * tokens * (dim * (c.ffn ? 6 : 5) + hidden);
    }
    cost.output = {h, w, dim};
    costs.push_back(std::move(cost));
  }
  const int64_t dim = c.embed_dims.back();
  if (c.head_norm_first) costs.push_back({"norm_pre", {h, w, dim}, 0, h * w * dim, 0});
  costs.push_back(
      {"head", {c.num_classes > 0 ? c.num_classes : dim}, dim * c.num_classes, 2 * dim, 0});
  return costs;
}

}  // namespace tessera
