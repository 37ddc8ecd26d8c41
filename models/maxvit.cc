#include "models/maxvit.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "attention/grid/grid.h"
#include "autograd/ops/activation.h"
#include "autograd/ops/average_pool.h"
#include "autograd/ops/dropout.h"
#include "autograd/ops/mean_pool.h"
#include "core/random.h"
#include "layers/depthwise_conv.h"
#include "layers/drop_path.h"
#include "layers/layer_scale.h"
#include "layers/mlp.h"
#include "models/run_stages.h"

namespace tessera {
namespace {

constexpr int64_t kKernel = 3;

int64_t HalfRoundedUp(int64_t n) { return (n + 1) / 2; }

Activation ActivationOf(const std::string& name) {
  if (name == "silu") return Activation::kSilu;
  return name == "gelu" ? Activation::kGelu : Activation::kGeluTanh;
}

layers::BatchNorm::Options NormOptions(const MaxVitConvConfig& config) {
  return {.eps = static_cast<float>(config.norm_eps),
          .momentum = config.norm_momentum,
          .frozen = config.norm_frozen};
}

// Padding of a convolution 3x3 on x [B, H, W, C].
Conv2dGeometry Padding(const MaxVitConvConfig& config, const Tensor& x, int64_t stride) {
  if (config.padding == "same") {
    return Conv2dGeometry::Same(x.dim(1), x.dim(2), kKernel, stride);
  }
  return Conv2dGeometry::Centred(kKernel, stride);
}

layers::Linear::Options PointwiseOptions(int64_t dim, bool bias) {
  return {.bias = bias, .pointwise = true, .weight_init = Init::FanOutNormal(dim)};
}

// A quarter of the pixels, and the block's width where it differs from the input's.
class Shortcut : public Module {
 public:
  Shortcut(const MaxVitConvConfig& config, int64_t in_dim, int64_t dim)
      : expand_(in_dim == dim
                    ? nullptr
                    : &AddChild<layers::Linear>("expand", in_dim, dim,
                                                PointwiseOptions(dim, config.output_bias))) {}

  Tensor Forward(const Tensor& x, const ForwardContext& context) const {
    if (expand_ == nullptr) return AveragePool(x, DType::kF32);
    return expand_->Forward(AveragePool(x, context.compute_dtype), DType::kF32);
  }

 private:
  layers::Linear* expand_;
};

// Inverted bottleneck (Sandler et al., arXiv 1801.04381) with a batch norm before it and
// squeeze-excite; the first of a stage has stride 2.
class MbConv : public Module {
 public:
  MbConv(const MaxVitConvConfig& config, int64_t in_dim, int64_t dim, int64_t stride,
         double drop_path_rate);
  Tensor Forward(const Tensor& x, const ForwardContext& context) const;

 private:
  const MaxVitConvConfig& config_;
  MbConvWidths widths_;
  int64_t stride_;
  Shortcut* shortcut_ = nullptr;
  layers::BatchNorm& pre_norm_;
  layers::Linear& conv1_;
  layers::BatchNorm& norm1_;
  layers::DepthwiseConv& conv2_;
  layers::BatchNorm& norm2_;
  layers::SqueezeExcite& se_;
  layers::Linear& conv3_;
  layers::DropPath& drop_path_;
};

MbConv::MbConv(const MaxVitConvConfig& config, int64_t in_dim, int64_t dim, int64_t stride,
               double drop_path_rate)
    : config_(config),
      widths_(MbConvWidthsOf(config, in_dim, dim)),
      stride_(stride),
      shortcut_(stride == 1 ? nullptr : &AddChild<Shortcut>("shortcut", config, in_dim, dim)),
      pre_norm_(AddChild<layers::BatchNorm>("pre_norm", in_dim, NormOptions(config))),
      conv1_(AddChild<layers::Linear>("conv1_1x1", in_dim, widths_.hidden,
                                      PointwiseOptions(widths_.hidden, /*bias=*/false))),
      norm1_(AddChild<layers::BatchNorm>("norm1", widths_.hidden, NormOptions(config))),
      conv2_(AddChild<layers::DepthwiseConv>(
          "conv2_kxk", widths_.hidden, kKernel,
          layers::DepthwiseConv::Options{.bias = false,
                                         .weight_init = Init::FanOutNormal(kKernel * kKernel)})),
      norm2_(AddChild<layers::BatchNorm>("norm2", widths_.hidden, NormOptions(config))),
      se_(AddChild<layers::SqueezeExcite>("se", widths_.hidden, widths_.squeezed)),
      conv3_(AddChild<layers::Linear>("conv3_1x1", widths_.hidden, dim,
                                      PointwiseOptions(dim, config.output_bias))),
      drop_path_(AddChild<layers::DropPath>("drop_path", drop_path_rate)) {}

Tensor MbConv::Forward(const Tensor& x, const ForwardContext& context) const {
  const DType dtype = context.compute_dtype;
  const Activation activation = ActivationOf(config_.act_layer);
  const Tensor shortcut = shortcut_ == nullptr ? x : shortcut_->Forward(x, context);
  Tensor y = pre_norm_.Forward(x, Activation::kNone, context, dtype);
  y = norm1_.Forward(conv1_.Forward(y, dtype), activation, context, dtype);
  y = conv2_.Forward(y, Padding(config_, y, stride_));
  y = norm2_.Forward(y, activation, se_, context, dtype);
  y = drop_path_.AddTo(shortcut, conv3_.Forward(y, dtype), context);
  context.Tap(*this, y);
  return y;
}

// Attention inside windows or across the grid, and an MLP.
class AttentionUnit : public Module {
 public:
  AttentionUnit(const MaxVitTransformerConfig& config, Partition partition, int64_t dim,
                double drop_path_rate);
  Tensor Forward(const Tensor& x, const ForwardContext& context) const;

 private:
  const layers::LayerScale* AddLayerScale(const char* name, int64_t dim, double init_value);
  Tensor Attend(const Tensor& x, const ForwardContext& context) const;
  Tensor Mix(const Tensor& x) const;

  layers::LayerNorm& norm1_;
  attention::GridAttention& attn_;
  const layers::LayerScale* ls1_;
  layers::DropPath& drop_path1_;
  layers::LayerNorm& norm2_;
  layers::Mlp& mlp_;
  const layers::LayerScale* ls2_;
  layers::DropPath& drop_path2_;
};

attention::GridAttention::Options AttentionOptions(const MaxVitTransformerConfig& config,
                                                   Partition partition, int64_t dim) {
  const std::vector<int64_t>& size =
      partition == Partition::kBlock ? config.window_size : config.grid_size;
  return {.attention = {.partition = partition,
                        .num_heads = dim / config.dim_head,
                        .rows = size[0],
                        .columns = size[1],
                        .head_first = config.head_first},
          .table = config.rel_pos_type == "bias_tf" ? RelativeTable::kKeyMinusQuery
                                                    : RelativeTable::kQueryMinusKey,
          .mlp_hidden_dim = config.rel_pos_type == "mlp" ? config.rel_pos_dim : 0};
}

int64_t MlpWidth(const MaxVitTransformerConfig& config, int64_t dim) {
  return static_cast<int64_t>(static_cast<double>(dim) * config.expand_ratio);
}

const layers::LayerScale* AttentionUnit::AddLayerScale(const char* name, int64_t dim,
                                                       double init_value) {
  return init_value == 0 ? nullptr : &AddChild<layers::LayerScale>(name, dim, init_value);
}

AttentionUnit::AttentionUnit(const MaxVitTransformerConfig& config, Partition partition,
                             int64_t dim, double drop_path_rate)
    : norm1_(AddChild<layers::LayerNorm>("norm1", dim, static_cast<float>(config.norm_eps))),
      attn_(AddChild<attention::GridAttention>("attn", dim,
                                               AttentionOptions(config, partition, dim))),
      ls1_(AddLayerScale("ls1", dim, config.init_values)),
      drop_path1_(AddChild<layers::DropPath>("drop_path1", drop_path_rate)),
      norm2_(AddChild<layers::LayerNorm>("norm2", dim, static_cast<float>(config.norm_eps))),
      mlp_(AddChild<layers::Mlp>(
          "mlp", dim, MlpWidth(config, dim),
          layers::Mlp::Options{.activation = ActivationOf(config.act_layer),
                               .weight_init = Init::XavierUniform(dim, MlpWidth(config, dim)),
                               .bias_init = Init::Normal(1e-6)})),
      ls2_(AddLayerScale("ls2", dim, config.init_values)),
      drop_path2_(AddChild<layers::DropPath>("drop_path2", drop_path_rate)) {}

Tensor AttentionUnit::Attend(const Tensor& x, const ForwardContext& context) const {
  context.TapAttention(attn_, x);
  Tensor y = attn_.Forward(x, context, context.compute_dtype);
  return ls1_ == nullptr ? y : ls1_->Forward(y);
}

Tensor AttentionUnit::Mix(const Tensor& x) const {
  Tensor y = mlp_.Forward(x);
  return ls2_ == nullptr ? y : ls2_->Forward(y);
}

Tensor AttentionUnit::Forward(const Tensor& x, const ForwardContext& context) const {
  const DType dtype = context.compute_dtype;
  const Tensor z = drop_path1_.AddTo(x, Attend(norm1_.Forward(x, dtype), context), context);
  Tensor y = drop_path2_.AddTo(z, Mix(norm2_.Forward(z, dtype)), context);
  context.Tap(*this, y);
  return y;
}

class MaxVitBlock : public Module {
 public:
  MaxVitBlock(const MaxVitConfig& config, int64_t in_dim, int64_t dim, int64_t stride,
              double drop_path_rate)
      : conv_(AddChild<MbConv>("conv", config.conv_cfg, in_dim, dim, stride, drop_path_rate)),
        block_(AddChild<AttentionUnit>("attn_block", config.transformer_cfg, Partition::kBlock, dim,
                                       drop_path_rate)),
        grid_(AddChild<AttentionUnit>("attn_grid", config.transformer_cfg, Partition::kGrid, dim,
                                      drop_path_rate)) {}

  Tensor Forward(const Tensor& x, const ForwardContext& context) const {
    return grid_.Forward(block_.Forward(conv_.Forward(x, context), context), context);
  }

 private:
  MbConv& conv_;
  AttentionUnit& block_;
  AttentionUnit& grid_;
};

// `blocks` of a stage.
class BlockList : public Module {
 public:
  template <typename... Args>
  MaxVitBlock& Append(int64_t index, Args&&... args) {
    return AddChild<MaxVitBlock>(absl::StrCat(index), std::forward<Args>(args)...);
  }
};

// Drops before the classifier, in training.
Tensor DropFeatures(const Tensor& x, double rate, const Module& module,
                    const ForwardContext& context) {
  if (!context.training || rate == 0) return x;
  return Dropout(
      x, rate,
      RandomKey(context.seed, Purpose::kDropout, context.step,
                HashString(module.full_name()) + static_cast<uint64_t>(context.first_sample)));
}

layers::Linear::Options HeadOptions(int64_t in_dim) {
  const Init init = Init::Uniform(1.0 / std::sqrt(static_cast<double>(in_dim)));
  return {.weight_init = init, .bias_init = init};
}

}  // namespace

class MaxVitStage : public Module {
 public:
  // Blocks have the drop path rates first_rate, first_rate + rate_step, ...
  MaxVitStage(const MaxVitConfig& config, int64_t depth, int64_t in_dim, int64_t dim,
              double first_rate, double rate_step) {
    BlockList& blocks = AddChild<BlockList>("blocks");
    for (int64_t i = 0; i < depth; ++i) {
      blocks_.push_back(&blocks.Append(i, config, i == 0 ? in_dim : dim, dim, i == 0 ? 2 : 1,
                                       first_rate + rate_step * static_cast<double>(i)));
    }
  }

  Tensor Forward(Tensor x, const ForwardContext& context) const {
    for (const MaxVitBlock* block : blocks_) {
      const auto forward = [block, &context](const Tensor& in) {
        return block->Forward(in, context);
      };
      x = context.checkpoint_blocks ? Checkpoint(x, forward) : forward(x);
    }
    context.Tap(*this, x);
    return x;
  }

 private:
  std::vector<const MaxVitBlock*> blocks_;
};

class MaxVit::Stem : public Module {
 public:
  explicit Stem(const MaxVitConfig& config)
      : config_(config.conv_cfg),
        conv1_(AddChild<layers::Conv2d>("conv1", config.in_chans, config.stem_width[0], kKernel,
                                        ConvOptions(config, config.stem_width[0]))),
        norm1_(AddChild<layers::BatchNorm>("norm1", config.stem_width[0],
                                           NormOptions(config.conv_cfg))),
        conv2_(AddChild<layers::Conv2d>("conv2", config.stem_width[0], config.stem_width[1],
                                        kKernel, ConvOptions(config, config.stem_width[1]))) {}

  Tensor Forward(const Tensor& images, const ForwardContext& context) const {
    Tensor x = conv1_.Forward(images, Padding(config_, images, 2), DType::kF32);
    context.Tap(conv1_, x);
    x = norm1_.Forward(x, ActivationOf(config_.act_layer), context, context.compute_dtype);
    x = conv2_.Forward(x, Conv2dGeometry::Centred(kKernel), DType::kF32);
    context.Tap(*this, x);
    return x;
  }

 private:
  static layers::Conv2d::Options ConvOptions(const MaxVitConfig& config, int64_t dim) {
    return {.bias = config.stem_bias,
            .weight_init = Init::FanOutNormal(kKernel * kKernel * dim),
            .bias_init = Init::Zeros()};
  }

  const MaxVitConvConfig& config_;
  layers::Conv2d& conv1_;
  layers::BatchNorm& norm1_;
  layers::Conv2d& conv2_;
};

namespace {

// The hidden layer of the head.
class PreLogits : public Module {
 public:
  PreLogits(int64_t dim, int64_t hidden_dim)
      : fc_(AddChild<layers::Linear>("fc", dim, hidden_dim, HeadOptions(dim))) {}
  Tensor Forward(const Tensor& x, const ForwardContext& context) const {
    Tensor y = Activate(fc_.Forward(x, DType::kF32), Activation::kTanh);
    context.Tap(*this, y);
    return y;
  }

 private:
  layers::Linear& fc_;
};

}  // namespace

class MaxVit::Head : public Module {
 public:
  explicit Head(const MaxVitConfig& config) : drop_rate_(config.drop_rate) {
    int64_t dim = config.embed_dim.back();
    if (config.head_hidden_size > 0) {
      norm_ = &AddChild<layers::LayerNorm>("norm", dim,
                                           static_cast<float>(config.transformer_cfg.norm_eps));
      pre_logits_ = &AddChild<PreLogits>("pre_logits", dim, config.head_hidden_size);
      dim = config.head_hidden_size;
    }
    if (config.num_classes > 0) {
      fc_ = &AddChild<layers::Linear>("fc", dim, config.num_classes, HeadOptions(dim));
    }
  }

  Tensor Forward(const Tensor& map, const ForwardContext& context) const {
    Tensor x = MeanPool(map);
    if (norm_ != nullptr) {
      x = norm_->Forward(x, DType::kF32);
      context.Tap(*norm_, x);
      x = pre_logits_->Forward(x, context);
    }
    x = DropFeatures(x, drop_rate_, *this, context);
    // The classifier is too small for bf16 to pay.
    return fc_ == nullptr ? x : fc_->Forward(x, DType::kF32);
  }

 private:
  layers::LayerNorm* norm_ = nullptr;
  PreLogits* pre_logits_ = nullptr;
  layers::Linear* fc_ = nullptr;
  double drop_rate_;
};

MbConvWidths MbConvWidthsOf(const MaxVitConvConfig& config, int64_t in_dim, int64_t dim) {
  constexpr int64_t kMultiple = 8;  // of the hidden width, which loses at most a tenth
  const double wanted =
      static_cast<double>(config.expand_output ? dim : in_dim) * config.expand_ratio;
  int64_t hidden =
      std::max(kMultiple, (static_cast<int64_t>(wanted) + kMultiple / 2) / kMultiple * kMultiple);
  if (static_cast<double>(hidden) < 0.9 * wanted) hidden += kMultiple;
  const int64_t base = config.expand_output ? dim : hidden;
  return {hidden, static_cast<int64_t>(config.attn_ratio * static_cast<double>(base))};
}

MaxVit::MaxVit(const MaxVitConfig& config) : config_(config) {
  int64_t total = 0, before = 0, in_dim = config_.stem_width[1];
  for (const int64_t depth : config_.depths) total += depth;
  const double step = total > 1 ? config_.drop_path_rate / static_cast<double>(total - 1) : 0.0;
  stem_ = &AddChild<Stem>("stem", config_);
  for (size_t s = 0; s < config_.depths.size(); ++s) {
    stages_.push_back(&AddChild<MaxVitStage>(absl::StrCat("stages.", s), config_, config_.depths[s],
                                             in_dim, config_.embed_dim[s],
                                             step * static_cast<double>(before), step));
    before += config_.depths[s];
    in_dim = config_.embed_dim[s];
  }
  if (config_.head_hidden_size == 0) {
    norm_ = &AddChild<layers::LayerNorm>("norm", in_dim,
                                         static_cast<float>(config_.transformer_cfg.norm_eps));
  }
  head_ = &AddChild<Head>("head", config_);
}

Tensor MaxVit::Forward(const Tensor& images, const ForwardContext& context) const {
  CHECK(images.rank() == 4 && images.dim(3) == config_.in_chans && images.numel() > 0)
      << "MaxVit: images " << images.shape() << ", expected [B, H, W, " << config_.in_chans << "]";
  Tensor x = RunStages(images, context, stages_.size(), [&](size_t s, const Tensor& map) {
    return stages_[s]->Forward(s == 0 ? stem_->Forward(map, context) : map, context);
  });
  if (norm_ != nullptr) x = norm_->Forward(x, DType::kF32);
  return head_->Forward(x, context);
}

std::optional<int64_t> MaxVit::LayerOf(absl::string_view parameter) const {
  const std::vector<absl::string_view> parts = absl::StrSplit(parameter, '.');
  const auto num_stages = static_cast<int64_t>(stages_.size());
  if (parts[0] == "stem") return 0;
  if (parts[0] == "norm") return num_stages;
  if (parts[0] == "head") return num_stages + 1;
  int64_t stage = 0;
  CHECK(parts[0] == "stages" && absl::SimpleAtoi(parts[1], &stage)) << parameter;
  return stage + 1;
}

absl::Status MaxVit::CheckImageSize(int64_t height, int64_t width) const {
  const MaxVitTransformerConfig& c = config_.transformer_cfg;
  int64_t h = HalfRoundedUp(height), w = HalfRoundedUp(width);
  for (size_t s = 0; s < config_.depths.size(); ++s) {
    if (config_.conv_cfg.padding != "same" && (h % 2 != 0 || w % 2 != 0)) {
      return ConfigError(absl::StrFormat(
          "an image of %dx%d has a map of %dx%d before stage %d; model.conv_cfg.padding=same "
          "allows odd sizes",
          height, width, h, w, s));
    }
    h = HalfRoundedUp(h);
    w = HalfRoundedUp(w);
    for (const auto& [name, size] :
         {std::pair("window", c.window_size), std::pair("grid", c.grid_size)}) {
      if (h % size[0] == 0 && w % size[1] == 0) continue;
      const int64_t unit = int64_t{4} << (config_.depths.size() - 1);
      return ConfigError(absl::StrFormat(
          "an image of %dx%d has a map of %dx%d in stage %d, which does not divide into the %s "
          "of %dx%d; image sizes that are multiples of %dx%d do, and so does "
          "model.transformer_cfg.%s_size=[%d, %d]",
          height, width, h, w, s, name, size[0], size[1], unit * size[0], unit * size[1], name,
          std::max<int64_t>(height / unit, 1), std::max<int64_t>(width / unit, 1)));
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera
