// TransNeXt (Shi, arXiv 2311.17132): aggregated attention and convolutional gated linear units on
// maps of four resolutions. Parameter names and shapes are those of the official checkpoints.
#ifndef TESSERA_MODELS_TRANSNEXT_H_
#define TESSERA_MODELS_TRANSNEXT_H_

#include <memory>
#include <string>
#include <vector>

#include "core/config.h"
#include "layers/linear.h"
#include "layers/norm.h"
#include "models/image_model.h"

namespace tessera {

// Field names are those of the official constructor. The defaults are transnext_micro.
struct TransNextConfig {
  std::vector<int64_t> depths = {2, 2, 15, 2};
  std::vector<int64_t> embed_dims = {48, 96, 192, 384};
  std::vector<int64_t> num_heads = {2, 4, 8, 16};
  std::vector<double> mlp_ratios = {8, 8, 4, 4};
  std::vector<int64_t> sr_ratios = {8, 4, 2, 1};
  std::vector<int64_t> window_size = {3, 3, 3, 3};
  int64_t img_size = 224;
  int64_t pretrain_size = 0;
  int64_t fixed_pool_size = 0;
  bool is_extrapolation = true;
  int64_t in_chans = 3;
  int64_t num_classes = 1000;
  double drop_path_rate = 0.0;

  template <class V>
  void VisitFields(V& v) {
    v("depths", depths, "blocks per stage", Between(1, 1000));
    v("embed_dims", embed_dims, "channels per stage", Between(1, 65536));
    v("num_heads", num_heads, "heads per stage", Between(1, 65536));
    v("mlp_ratios", mlp_ratios, "1.5 times the hidden width of the gated unit over the channels",
      Between(0, 64));
    v("sr_ratios", sr_ratios, "side of a pooled cell; 1: attention among all positions",
      Between(1, 1024));
    v("window_size", window_size, "odd side of the neighbourhood; unused where sr_ratios is 1",
      Between(0, 63));
    v("img_size", img_size, "side of the images that position biases are made for",
      Between(64, 65536));
    v("pretrain_size", pretrain_size,
      "side of the images in pre-training, the scale of relative coordinates; 0: img_size",
      Between(0, 65536));
    v("fixed_pool_size", fixed_pool_size,
      "side of the pooled grid whatever the image, for a cost linear in its size; 0: size of the "
      "map over sr_ratios",
      Between(0, 1024));
    v("is_extrapolation", is_extrapolation,
      "make position biases for other image sizes anew; if not, resize those of img_size");
    v("in_chans", in_chans, "channels of the image", Between(1, 1024));
    v("num_classes", num_classes, "classes; 0: no classifier", Between(0, 1e6));
    v("drop_path_rate", drop_path_rate, "stochastic depth of the last block", HalfOpen(0, 1));
  }

  int64_t hidden_dim(size_t stage) const {
    return 2 * static_cast<int64_t>(static_cast<double>(embed_dims[stage]) * mlp_ratios[stage]) / 3;
  }
};

class TransNext : public ImageModel {
 public:
  // ConfigError naming the field of `options` that does not fit the others.
  static absl::StatusOr<std::unique_ptr<ImageModel>> Create(const TransNextConfig& base,
                                                            const ConfigNode& options);

  explicit TransNext(const TransNextConfig& config);
  Tensor Forward(const Tensor& images, const ForwardContext& context) const override;
  // The normalised maps [B, H, W, C] of all stages, for dense prediction; of the compute dtype, the
  // last one f32.
  std::vector<Tensor> ForwardFeatures(const Tensor& images, const ForwardContext& context) const;
  int64_t num_classes() const override { return config_.num_classes; }
  int64_t in_chans() const override { return config_.in_chans; }
  std::vector<StageCost> Costs(int64_t height, int64_t width) const override;
  ConfigNode Options() const override { return ConfigToNode(config_); }
  // The stem, each block, the head. A later patch embedding belongs to the block that follows it, a
  // stage's norm to the one before it.
  std::optional<int64_t> LayerOf(absl::string_view parameter) const override;
  absl::StatusOr<OnnxValue> ToOnnx(OnnxGraph& graph, const OnnxValue& images) const override;

 private:
  class PatchEmbed;
  class Block;
  class BlockList;
  struct Stage {
    PatchEmbed* patch_embed;
    BlockList* blocks;
    layers::LayerNorm* norm;
  };

  // The map of the stage before, or images -> its normalised map.
  Tensor ForwardStage(size_t stage, const Tensor& x, const ForwardContext& context) const;

  TransNextConfig config_;
  std::vector<Stage> stages_;
  layers::Linear* head_ = nullptr;
};

}  // namespace tessera

#endif  // TESSERA_MODELS_TRANSNEXT_H_
