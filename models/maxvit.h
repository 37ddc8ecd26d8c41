// MaxViT: multi-axis vision transformer (Tu et al., arXiv 2204.01697). Every block is an inverted
// bottleneck convolution, attention inside windows and attention across a grid over the whole map;
// parameter names and shapes are timm's.
#ifndef TESSERA_MODELS_MAXVIT_H_
#define TESSERA_MODELS_MAXVIT_H_

#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "layers/norm.h"
#include "models/image_model.h"

namespace tessera {

// Field names are those of timm's MaxxVitCfg. The defaults are the tf family's, tiny; its image
// size is 32 times the window.
struct MaxVitConvConfig {
  double expand_ratio = 4.0;
  bool expand_output = true;
  bool output_bias = true;
  double attn_ratio = 0.25;
  std::string act_layer = "gelu_tanh";
  std::string padding = "same";
  double norm_eps = 1e-3;
  double norm_momentum = 0.1;
  bool norm_frozen = false;

  template <class V>
  void VisitFields(V& v) {
    v("expand_ratio", expand_ratio, "hidden width of the convolutions over that of the block",
      MoreThan(0));
    v("expand_output", expand_output, "... over its output's width, else its input's");
    v("output_bias", output_bias, "bias in the last convolution and the shortcut");
    v("attn_ratio", attn_ratio, "width of squeeze-excite over that of the output (or hidden map)",
      MoreThan(0));
    v("act_layer", act_layer, "activation of stem and convolutions", OneOf({"gelu_tanh", "silu"}));
    v("padding", padding, "'same': TensorFlow's; empty: symmetric, sizes are even",
      OneOf({"same", ""}));
    v("norm_eps", norm_eps, "of the batch norms", MoreThan(0));
    v("norm_momentum", norm_momentum, "of the batch in the batch norms' running statistics",
      Between(0, 1));
    v("norm_frozen", norm_frozen, "train with the running statistics, as for few images a step");
  }
};

struct MaxVitTransformerConfig {
  int64_t dim_head = 32;
  bool head_first = false;
  double expand_ratio = 4.0;
  std::string rel_pos_type = "bias_tf";
  int64_t rel_pos_dim = 512;
  std::vector<int64_t> window_size = {7, 7};
  std::vector<int64_t> grid_size = {7, 7};
  std::string act_layer = "gelu_tanh";
  double init_values = 0.0;
  double norm_eps = 1e-5;

  template <class V>
  void VisitFields(V& v) {
    v("dim_head", dim_head, "channels of a head", Between(1, 65536));
    v("head_first", head_first, "channels of qkv in the order head, (q, k, v)");
    v("expand_ratio", expand_ratio, "hidden width of the MLPs over the channels", MoreThan(0));
    v("rel_pos_type", rel_pos_type,
      "position bias: a table by key - query, by query - key, or an MLP",
      OneOf({"bias_tf", "bias", "mlp"}));
    v("rel_pos_dim", rel_pos_dim, "hidden width of that MLP", Between(1, 65536));
    v("window_size", window_size, "rows and columns of a window", Between(1, 1024));
    v("grid_size", grid_size, "rows and columns of the grid", Between(1, 1024));
    v("act_layer", act_layer, "activation of the MLPs", OneOf({"gelu_tanh", "gelu"}));
    v("init_values", init_values, "layer scale of both branches at the start; 0: none", AtLeast(0));
    v("norm_eps", norm_eps, "of the layer norms", MoreThan(0));
  }
};

struct MaxVitConfig {
  std::vector<int64_t> embed_dim = {64, 128, 256, 512};
  std::vector<int64_t> depths = {2, 2, 5, 2};
  std::vector<int64_t> stem_width = {64, 64};
  bool stem_bias = true;
  MaxVitConvConfig conv_cfg;
  MaxVitTransformerConfig transformer_cfg;
  int64_t head_hidden_size = 512;
  int64_t in_chans = 3;
  int64_t num_classes = 1000;
  double drop_rate = 0.0;
  double drop_path_rate = 0.0;

  template <class V>
  void VisitFields(V& v) {
    v("embed_dim", embed_dim, "channels per stage", Between(1, 65536));
    v("depths", depths, "blocks per stage", Between(1, 1000));
    v("stem_width", stem_width, "channels of the stem's two convolutions", Between(1, 65536));
    v("stem_bias", stem_bias, "bias in the stem's convolutions");
    v("conv_cfg", conv_cfg, "");
    v("transformer_cfg", transformer_cfg, "");
    v("head_hidden_size", head_hidden_size,
      "hidden layer of the head; 0: none, and the norm before pooling", Between(0, 65536));
    v("in_chans", in_chans, "channels of the image", Between(1, 1024));
    v("num_classes", num_classes, "classes; 0: no classifier", Between(0, 1e6));
    v("drop_rate", drop_rate, "dropout before the classifier", HalfOpen(0, 1));
    v("drop_path_rate", drop_path_rate, "stochastic depth of the last block", HalfOpen(0, 1));
  }
};

class MaxVitStage;

class MaxVit : public ImageModel {
 public:
  // ConfigError naming the field of `options` that does not fit the others.
  static absl::StatusOr<std::unique_ptr<ImageModel>> Create(const MaxVitConfig& base,
                                                            const ConfigNode& options);

  explicit MaxVit(const MaxVitConfig& config);
  Tensor Forward(const Tensor& images, const ForwardContext& context) const override;
  absl::Status CheckImageSize(int64_t height, int64_t width) const override;
  int64_t num_classes() const override { return config_.num_classes; }
  int64_t in_chans() const override { return config_.in_chans; }
  std::vector<StageCost> Costs(int64_t height, int64_t width) const override;
  ConfigNode Options() const override { return ConfigToNode(config_); }
  // As timm's group_matcher: the stem, each stage, the head; a norm before the head belongs to the
  // last stage.
  std::optional<int64_t> LayerOf(absl::string_view parameter) const override;
  absl::StatusOr<OnnxValue> ToOnnx(OnnxGraph& graph, const OnnxValue& images) const override;

 private:
  class Stem;
  class Head;

  MaxVitConfig config_;
  Stem* stem_;
  std::vector<MaxVitStage*> stages_;
  layers::LayerNorm* norm_ = nullptr;
  Head* head_;
};

// Widths of a block's convolutions, which checkpoints depend on.
struct MbConvWidths {
  int64_t hidden;
  int64_t squeezed;
};
MbConvWidths MbConvWidthsOf(const MaxVitConvConfig& config, int64_t in_dim, int64_t dim);

}  // namespace tessera

#endif  // TESSERA_MODELS_MAXVIT_H_
