#include "models/biformer.h"

#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "attention/bilevel_routing/bilevel_routing.h"
#include "autograd/ops/cast.h"
#include "autograd/ops/mean_pool.h"
#include "autograd/ops/mlp.h"
#include "layers/depthwise_conv.h"
#include "layers/drop_path.h"
#include "models/run_stages.h"

namespace tessera {
namespace {

constexpr float kNormEps = 1e-6f;
constexpr int64_t kPositionKernel = 3;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool IsBiFormer(const BiFormerConfig& config) { return config.layout == "biformer"; }
bool IsPointwise(const BiFormerConfig& config) { return config.layout == "stl_nchw"; }
bool IsGlobal(const BiFormerConfig& config, int64_t stage) { return config.topks[stage] < 0; }

layers::BatchNorm::Options NormOptions(const BiFormerConfig& config) {
  return {.frozen = config.norm_eval};
}

int64_t HiddenDim(const BiFormerConfig& config, int64_t stage) {
  return static_cast<int64_t>(static_cast<double>(config.embed_dim[stage]) *
                              config.mlp_ratios[stage]);
}

// Children are named by their places in a list of the official code.
class NamedList : public Module {
 public:
  template <typename M, typename... Args>
  M& Append(std::string name, Args&&... args) {
    return AddChild<M>(std::move(name), std::forward<Args>(args)...);
  }
};

// Two linear layers with GELU between them, called 0 and `second`.
class BlockMlp : public Module {
 public:
  BlockMlp(int64_t dim, int64_t hidden, bool pointwise, const char* second)
      : in_(AddChild<layers::Linear>("0", dim, hidden, Options(dim, pointwise))),
        out_(AddChild<layers::Linear>(second, hidden, dim, Options(hidden, pointwise))) {}

  Tensor Forward(const Tensor& x) const {
    return tessera::Mlp(x, in_.weight(x.dtype()), in_.bias(), out_.weight(x.dtype()), out_.bias(),
                        Activation::kGelu);
  }

 private:
  static layers::Linear::Options Options(int64_t in_features, bool pointwise) {
    if (!pointwise) return {};
    const Init init = Init::Uniform(1.0 / std::sqrt(static_cast<double>(in_features)));
    return {.pointwise = true, .weight_init = init, .bias_init = init};
  }
  const layers::Linear& in_;
  const layers::Linear& out_;
};

class Block : public Module {
 public:
  Block(const BiFormerConfig& config, int64_t stage, double drop_path_rate)
      : pos_embed_(IsBiFormer(config) ? &AddChild<layers::DepthwiseConv>(
                                            "pos_embed", config.embed_dim[stage], kPositionKernel)
                                      : nullptr),
        norm1_(AddChild<layers::LayerNorm>("norm1", config.embed_dim[stage], kNormEps)),
        drop_path1_(AddChild<layers::DropPath>("drop_path1", drop_path_rate)),
        norm2_(AddChild<layers::LayerNorm>("norm2", config.embed_dim[stage], kNormEps)),
        mlp_(AddChild<BlockMlp>("mlp", config.embed_dim[stage], HiddenDim(config, stage),
                                IsPointwise(config), IsBiFormer(config) ? "3" : "2")),
        drop_path2_(AddChild<layers::DropPath>("drop_path2", drop_path_rate)) {
    const int64_t dim = config.embed_dim[stage];
    if (IsGlobal(config, stage)) {
      global_ = &AddChild<attention::GlobalAttention>(
          "attn",
          attention::GlobalAttention::Options{.dim = dim, .pointwise = IsPointwise(config)});
    } else {
      routed_ = &AddChild<attention::BilevelRoutingAttention>(
          "attn", attention::BilevelRoutingAttention::Options{.dim = dim,
                                                              .num_heads = dim / config.head_dim,
                                                              .n_win = config.n_win[stage],
                                                              .topk = config.topks[stage],
                                                              .pointwise = IsPointwise(config)});
    }
  }

  Tensor Forward(const Tensor& in, const ForwardContext& context) const {
    const DType dtype = context.compute_dtype;
    const Tensor x = pos_embed_ == nullptr ? in : pos_embed_->AddTo(in);
    const Tensor z = drop_path1_.AddTo(x, Attend(norm1_.Forward(x, dtype), context), context);
    Tensor mixed = mlp_.Forward(norm2_.Forward(z, dtype));
    return drop_path2_.AddTo(z, std::move(mixed), context);
  }

 private:
  Tensor Attend(const Tensor& x, const ForwardContext& context) const {
    if (global_ != nullptr) {
      context.TapAttention(*global_, x);
      return global_->Forward(x, context.compute_dtype);
    }
    context.TapAttention(*routed_, x);
    return routed_->Forward(x, context, context.compute_dtype);
  }

  const layers::DepthwiseConv* pos_embed_;
  const layers::LayerNorm& norm1_;
  const attention::GlobalAttention* global_ = nullptr;
  const attention::BilevelRoutingAttention* routed_ = nullptr;
  const layers::DropPath& drop_path1_;
  const layers::LayerNorm& norm2_;
  const BlockMlp& mlp_;
  const layers::DropPath& drop_path2_;
};

}  // namespace

// One or two convolutions with batch norms that shrink the map by 2, the first one by 4. In the
// layout of Swin, one convolution without overlap, behind the norm but in the first stage.
class BiFormer::Downsample : public Module {
 public:
  Downsample(const BiFormerConfig& config, int64_t stage)
      : norm_options_(NormOptions(config)), exact_input_(stage == 0) {
    const int64_t dim = config.embed_dim[stage];
    const int64_t in_dim = stage == 0 ? config.in_chans : config.embed_dim[stage - 1];
    const bool overlaps = IsBiFormer(config), stem = stage == 0;
    int place = 0;
    if (overlaps) {
      if (stem) {
        AddConv(&place, in_dim, dim / 2, 3, Conv2dGeometry::Centred(3, 2));
        AddNorm(&place, dim / 2, Activation::kGelu);
        ++place;  // the activation
      }
      AddConv(&place, stem ? dim / 2 : in_dim, dim, 3, Conv2dGeometry::Centred(3, 2));
      AddNorm(&place, dim, Activation::kNone);
    } else if (stem) {
      AddConv(&place, in_dim, dim, 4, {.stride = 4});
      AddNorm(&place, dim, Activation::kNone);
    } else {
      AddNorm(&place, in_dim, Activation::kNone);
      AddConv(&place, in_dim, dim, 2, {.stride = 2});
    }
  }

  Tensor Forward(const Tensor& in, const ForwardContext& context) const {
    // The image is convolved as it is: its rounding would be in every token.
    Tensor x = exact_input_ || steps_[0].norm != nullptr ? in : Cast(in, context.compute_dtype);
    for (size_t i = 0; i < steps_.size(); ++i) {
      const Step& step = steps_[i];
      const DType out = i + 1 == steps_.size() ? DType::kF32 : context.compute_dtype;
      if (step.norm != nullptr) {
        x = step.norm->Forward(x, step.activation, context, out);
      } else {
        x = step.conv->Forward(x, step.geometry, x.dtype() == DType::kF32 ? DType::kF32 : out);
      }
    }
    context.Tap(*this, x);
    return x;
  }

 private:
  struct Step {
    const layers::Conv2d* conv = nullptr;
    Conv2dGeometry geometry;
    const layers::BatchNorm* norm = nullptr;
    Activation activation = Activation::kNone;
  };

  void AddConv(int* place, int64_t in_dim, int64_t dim, int64_t kernel_size,
               const Conv2dGeometry& geometry) {
    steps_.push_back(
        {.conv = &AddChild<layers::Conv2d>(absl::StrCat((*place)++), in_dim, dim, kernel_size),
         .geometry = geometry});
  }
  void AddNorm(int* place, int64_t dim, Activation activation) {
    steps_.push_back(
        {.norm = &AddChild<layers::BatchNorm>(absl::StrCat((*place)++), dim, norm_options_),
         .activation = activation});
  }

  layers::BatchNorm::Options norm_options_;
  bool exact_input_;
  std::vector<Step> steps_;
};

class BiFormer::Stage : public Module {
 public:
  // Blocks have the drop path rates first_rate, first_rate + rate_step, ...
  Stage(const BiFormerConfig& config, int64_t stage, double first_rate, double rate_step) {
    NamedList* list = IsBiFormer(config) ? nullptr : &AddChild<NamedList>("blocks");
    for (int64_t i = 0; i < config.depth[stage]; ++i) {
      const double rate = first_rate + rate_step * static_cast<double>(i);
      const std::string name = absl::StrCat(i);
      blocks_.push_back(list == nullptr ? &AddChild<Block>(name, config, stage, rate)
                                        : &list->Append<Block>(name, config, stage, rate));
    }
  }

  Tensor Forward(Tensor x, const ForwardContext& context) const {
    for (const Block* block : blocks_) {
      const auto forward = [block, &context](const Tensor& in) {
        return block->Forward(in, context);
      };
      x = context.checkpoint_blocks ? Checkpoint(x, forward) : forward(x);
      context.Tap(*block, x);
    }
    context.Tap(*this, x);
    return x;
  }

 private:
  std::vector<const Block*> blocks_;
};

BiFormer::BiFormer(const BiFormerConfig& config) : config_(config) {
  const auto num_stages = static_cast<int64_t>(config.depth.size());
  NamedList& downsamples = AddChild<NamedList>("downsample_layers");
  NamedList& stages = AddChild<NamedList>("stages");
  int64_t blocks = 0;
  for (const int64_t depth : config.depth) blocks += depth;
  const double step = blocks > 1 ? config.drop_path_rate / static_cast<double>(blocks - 1) : 0.0;
  int64_t block = 0;
  for (int64_t s = 0; s < num_stages; ++s) {
    downsamples_.push_back(&downsamples.Append<Downsample>(absl::StrCat(s), config, s));
    stages_.push_back(
        &stages.Append<Stage>(absl::StrCat(s), config, s, step * static_cast<double>(block), step));
    block += config.depth[s];
  }
  if (config.extra_norms) {
    NamedList& norms = AddChild<NamedList>("extra_norms");
    for (int64_t s = 0; s < num_stages; ++s) {
      extra_norms_.push_back(
          &norms.Append<layers::LayerNorm>(absl::StrCat(s), config.embed_dim[s], kNormEps));
    }
    return;
  }
  norm_ = &AddChild<layers::BatchNorm>("norm", config.embed_dim.back(), NormOptions(config));
  if (config.num_classes > 0) {
    head_ = &AddChild<layers::Linear>("head", config.embed_dim.back(), config.num_classes);
  }
}

std::vector<Tensor> BiFormer::ForwardFeatures(const Tensor& images,
                                              const ForwardContext& context) const {
  std::vector<Tensor> features;
  Tensor x = images;
  for (size_t s = 0; s < stages_.size(); ++s) {
    x = ForwardStage(s, x, context);
    features.push_back(extra_norms_.empty() ? x : extra_norms_[s]->Forward(x, DType::kF32));
  }
  return features;
}

Tensor BiFormer::ForwardStage(size_t stage, const Tensor& x, const ForwardContext& context) const {
  CHECK(stage > 0 || (x.rank() == 4 && x.dim(3) == config_.in_chans && x.numel() > 0))
      << "BiFormer: images " << x.shape() << ", expected [B, H, W, " << config_.in_chans << "]";
  return stages_[stage]->Forward(downsamples_[stage]->Forward(x, context), context);
}

Tensor BiFormer::Forward(const Tensor& images, const ForwardContext& context) const {
  Tensor x = RunStages(images, context, stages_.size(),
                       [&](size_t s, const Tensor& map) { return ForwardStage(s, map, context); });
  if (!extra_norms_.empty()) x = extra_norms_.back()->Forward(x, DType::kF32);
  if (norm_ != nullptr) {
    x = norm_->Forward(x, Activation::kNone, context, DType::kF32);
    context.Tap(*norm_, x);
  }
  const Tensor pooled = MeanPool(x);
  // The classifier is too small for bf16 to pay.
  return head_ == nullptr ? pooled : head_->Forward(pooled, DType::kF32);
}

std::optional<int64_t> BiFormer::LayerOf(absl::string_view parameter) const {
  const std::vector<absl::string_view> parts = absl::StrSplit(parameter, '.');
  const auto number = [&](size_t part) {
    int64_t value = 0;
    CHECK(part < parts.size() && absl::SimpleAtoi(parts[part], &value)) << parameter;
    return value;
  };
  const auto blocks_before = [&](int64_t stage) {
    return std::accumulate(config_.depth.begin(), config_.depth.begin() + stage, int64_t{0});
  };
  const int64_t blocks = blocks_before(static_cast<int64_t>(config_.depth.size()));
  if (parts[0] == "head") return blocks + 1;
  if (parts[0] == "norm") return blocks;
  const int64_t stage = number(1);
  if (parts[0] == "extra_norms") return blocks_before(stage + 1);
  if (parts[0] == "downsample_layers") return stage == 0 ? 0 : blocks_before(stage) + 1;
  return blocks_before(stage) + 1 + number(parts[2] == "blocks" ? 3 : 2);
}

std::vector<StageCost> BiFormer::Costs(int64_t height, int64_t width) const {
  const BiFormerConfig& c = config_;
  std::vector<StageCost> costs;
  int64_t h = height, w = width;
  for (size_t s = 0; s < c.depth.size(); ++s) {
    const int64_t dim = c.embed_dim[s], in_dim = s == 0 ? c.in_chans : c.embed_dim[s - 1];
    StageCost down{absl::StrCat("downsample_layers.", s), {}};
    const auto convolve = [&](int64_t in, int64_t out, int64_t kernel, int64_t stride) {
      // Input and, for the norm behind or before it, output.
      down.saved_compute += h * w * in;
      h = IsBiFormer(c) ? CeilDiv(h, stride) : h / stride;
      w = IsBiFormer(c) ? CeilDiv(w, stride) : w / stride;
      down.macs += h * w * in * out * kernel * kernel;
      down.saved_compute += h * w * out;
    };
    if (!IsBiFormer(c)) {
      convolve(in_dim, dim, s == 0 ? 4 : 2, s == 0 ? 4 : 2);
    } else if (s == 0) {
      convolve(in_dim, dim / 2, 3, 2);
      convolve(dim / 2, dim, 3, 2);
    } else {
      convolve(in_dim, dim, 3, 2);
    }
    down.output = {h, w, dim};
    costs.push_back(std::move(down));

    StageCost cost{absl::StrCat("stages.", s), {h, w, dim}};
    const int64_t tokens = h * w, hidden = HiddenDim(c, static_cast<int64_t>(s)), n = c.n_win[s];
    int64_t regions = 1, keys = tokens;
    if (!IsGlobal(c, static_cast<int64_t>(s))) {
      regions = n * n;
      keys = std::min(c.topks[s], regions) * CeilDiv(h, n) * CeilDiv(w, n);
    }
    const int64_t position = IsBiFormer(c) ? kPositionKernel * kPositionKernel : 0;
    const int64_t routing = regions > 1 ? regions * regions * dim : 0;
    cost.macs =
        c.depth[s] * (tokens * dim * (position + 25 + 4 * dim + 2 * keys + 2 * hidden) + routing);
    // Inputs of the convolution and the norms; then norm outputs, qkv, attention, MLP.
    cost.saved_f32 = c.depth[s] * tokens * dim * (IsBiFormer(c) ? 3 : 2);
    cost.saved_compute = c.depth[s] * tokens * (6 * dim + hidden);
    costs.push_back(std::move(cost));
  }
  const int64_t dim = c.embed_dim.back();
  if (norm_ != nullptr) costs.push_back({"norm", {h, w, dim}, 0, h * w * dim, 0});
  for (size_t s = 0; s < extra_norms_.size(); ++s) {
    const Shape output = costs[2 * s + 1].output;
    costs.push_back({absl::StrCat("extra_norms.", s), output, 0, output.numel(), 0});
  }
  if (head_ != nullptr) costs.push_back({"head", {c.num_classes}, dim * c.num_classes, dim, 0});
  return costs;
}

}  // namespace tessera
