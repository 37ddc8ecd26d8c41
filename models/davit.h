// DaViT: dual attention vision transformer (Ding et al., arXiv 2204.03645). Blocks alternate
// attention inside windows with attention among channels; parameter names and shapes are timm's.
#ifndef TESSERA_MODELS_DAVIT_H_
#define TESSERA_MODELS_DAVIT_H_

#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "models/image_model.h"
#include "models/weight_names.h"

namespace tessera {

// Field names are those of timm's constructor. The defaults are davit_tiny.
struct DaVitConfig {
  std::vector<int64_t> depths = {1, 1, 3, 1};
  std::vector<int64_t> embed_dims = {96, 192, 384, 768};
  std::vector<int64_t> num_heads = {3, 6, 12, 24};
  int64_t window_size = 7;
  double mlp_ratio = 4.0;
  bool qkv_bias = true;
  std::vector<std::string> attn_types = {"spatial", "channel"};
  bool ffn = true;
  bool cpe_act = false;
  int64_t down_kernel_size = 2;
  bool channel_attn_v2 = false;
  bool named_blocks = false;
  bool head_norm_first = false;
  int64_t in_chans = 3;
  int64_t num_classes = 1000;
  double drop_rate = 0.0;
  double drop_path_rate = 0.0;

  template <class V>
  void VisitFields(V& v) {
    v("depths", depths, "pairs of blocks per stage", Between(1, 1000));
    v("embed_dims", embed_dims, "channels per stage", Between(1, 65536));
    v("num_heads", num_heads, "heads of both attentions per stage", Between(1, 65536));
    v("window_size", window_size, "side of an attention window", Between(1, 1024));
    v("mlp_ratio", mlp_ratio, "hidden width of the MLP over the channels", Between(0, 64));
    v("qkv_bias", qkv_bias, "bias in the qkv projections");
    v("attn_types", attn_types, "blocks of a pair, in order", OneOf({"spatial", "channel"}));
    v("ffn", ffn, "MLP in every block");
    v("cpe_act", cpe_act, "GELU on the positional convolutions");
    v("down_kernel_size", down_kernel_size, "kernel of the downsampling, 2 or 3", Between(2, 3));
    v("channel_attn_v2", channel_attn_v2, "channel attention scaled by the token count");
    v("named_blocks", named_blocks, "parameter names with spatial_block and channel_block");
    v("head_norm_first", head_norm_first, "norm the last map before pooling, not after");
    v("in_chans", in_chans, "channels of the image", Between(1, 1024));
    v("num_classes", num_classes, "classes; 0: no classifier", Between(0, 1e6));
    v("drop_rate", drop_rate, "dropout before the classifier", HalfOpen(0, 1));
    v("drop_path_rate", drop_path_rate, "stochastic depth of the last pair", HalfOpen(0, 1));
  }
};

class DaVitStage;

class DaVit : public ImageModel {
 public:
  // ConfigError naming the field of `options` that does not fit the others.
  static absl::StatusOr<std::unique_ptr<ImageModel>> Create(const DaVitConfig& base,
                                                            const ConfigNode& options);

  explicit DaVit(const DaVitConfig& config);
  Tensor Forward(const Tensor& images, const ForwardContext& context) const override;
  int64_t num_classes() const override { return config_.num_classes; }
  int64_t in_chans() const override { return config_.in_chans; }
  std::vector<StageCost> Costs(int64_t height, int64_t width) const override;
  ConfigNode Options() const override { return ConfigToNode(config_); }
  // As timm's group_matcher: the stem, each pair of blocks, norm_pre, the head; a downsampling
  // belongs to the pair that follows it.
  std::optional<int64_t> LayerOf(absl::string_view parameter) const override;
  absl::StatusOr<OnnxValue> ToOnnx(OnnxGraph& graph, const OnnxValue& images) const override;

 private:
  class Stem;
  class Head;

  DaVitConfig config_;
  Stem* stem_;
  std::vector<DaVitStage*> stages_;
  layers::LayerNorm* norm_pre_ = nullptr;
  Head* head_;
};

// From the names of the authors' checkpoints and of Florence-2's to ours.
std::vector<NameRule> DaVitWeightNames();

}  // namespace tessera

#endif  // TESSERA_MODELS_DAVIT_H_
