// BiFormer: vision transformer with bi-level routing attention (Zhu et al., arXiv 2303.08810), and
// its variants in the layout of Swin-Tiny. Parameter names and shapes are those of the official
// code.
#ifndef TESSERA_MODELS_BIFORMER_H_
#define TESSERA_MODELS_BIFORMER_H_

#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "models/image_model.h"

namespace tessera {

// Field names are those of the official constructor. The defaults are biformer_tiny.
struct BiFormerConfig {
  std::vector<int64_t> depth = {2, 2, 8, 2};
  std::vector<int64_t> embed_dim = {64, 128, 256, 512};
  int64_t head_dim = 32;
  std::vector<double> mlp_ratios = {3, 3, 3, 3};
  std::vector<int64_t> n_win = {7, 7, 7, 7};
  std::vector<int64_t> topks = {1, 4, 16, -2};
  std::string layout = "biformer";
  bool extra_norms = false;
  bool norm_eval = false;
  int64_t in_chans = 3;
  int64_t num_classes = 1000;
  double drop_path_rate = 0.0;

  template <class V>
  void VisitFields(V& v) {
    v("depth", depth, "blocks per stage", Between(1, 1000));
    v("embed_dim", embed_dim, "channels per stage", Between(1, 65536));
    v("head_dim", head_dim, "channels of a head of routed attention", Between(1, 65536));
    v("mlp_ratios", mlp_ratios, "hidden width of the MLPs over the channels", Between(0, 64));
    v("n_win", n_win, "regions along each side of the map, per stage", Between(1, 1024));
    v("topks", topks, "regions that a region attends to, per stage; below 0: all tokens, 8 heads",
      Between(-2, 1 << 20));
    v("layout", layout,
      "biformer, or stl and stl_nchw: patches of 4 x 4, no positional convolutions; stl_nchw pads "
      "regions after the projection",
      OneOf({"biformer", "stl", "stl_nchw"}));
    v("extra_norms", extra_norms, "a norm of each stage's output in place of the classifier");
    v("norm_eval", norm_eval, "batch norms keep their running statistics in training, too");
    v("in_chans", in_chans, "channels of the image", Between(1, 1024));
    v("num_classes", num_classes, "classes; 0: no classifier", Between(0, 1e6));
    v("drop_path_rate", drop_path_rate, "stochastic depth of the last block", HalfOpen(0, 1));
  }
};

class BiFormer : public ImageModel {
 public:
  // ConfigError naming the field of `options` that does not fit the others.
  static absl::StatusOr<std::unique_ptr<ImageModel>> Create(const BiFormerConfig& base,
                                                            const ConfigNode& options);
  explicit BiFormer(const BiFormerConfig& config);

  // images f32 [B, H, W, in_chans] -> logits [B, num_classes], or, without classifier, the mean of
  // the last map [B, C].
  Tensor Forward(const Tensor& images, const ForwardContext& context) const override;
  // The outputs f32 [B, H / s, W / s, C] of the stages, s = 4, 8, 16, 32, sides rounded up; normed
  // with extra_norms. For detection and segmentation.
  std::vector<Tensor> ForwardFeatures(const Tensor& images, const ForwardContext& context) const;

  int64_t num_classes() const override { return head_ == nullptr ? 0 : config_.num_classes; }
  int64_t in_chans() const override { return config_.in_chans; }
  std::vector<StageCost> Costs(int64_t height, int64_t width) const override;
  ConfigNode Options() const override { return ConfigToNode(config_); }
  // The stem, each block, the head. A downsampling belongs to the block that follows it, a norm to
  // the one before it.
  std::optional<int64_t> LayerOf(absl::string_view parameter) const override;
  absl::StatusOr<OnnxValue> ToOnnx(OnnxGraph& graph, const OnnxValue& images) const override;

 private:
  class Downsample;
  class Stage;

  Tensor ForwardStage(size_t stage, const Tensor& x, const ForwardContext& context) const;

  BiFormerConfig config_;
  std::vector<const Downsample*> downsamples_;
  std::vector<const Stage*> stages_;
  std::vector<const layers::LayerNorm*> extra_norms_;
  const layers::BatchNorm* norm_ = nullptr;
  const layers::Linear* head_ = nullptr;
};

}  // namespace tessera

#endif  // TESSERA_MODELS_BIFORMER_H_
