#include "train/layer_decay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "core/check.h"
#include "models/registry.h"
#include "train/optimizer.h"

namespace tessera::train {
namespace {

std::unique_ptr<ImageModel> Make(const std::string& family, const std::string& options) {
  auto model = (*FindModel(family))->create(*ParseYaml(options, "test"));
  CHECK(model.ok()) << model.status();
  return *std::move(model);
}

constexpr const char* kSmall =
    "{embed_dims: [8, 16], num_heads: [1, 2], depths: [1, 2], window_size: 3, num_classes: 5";

// Expects factors of 1/2 per layer, by the names of parameters.
void ExpectScales(ImageModel& model, const std::map<std::string, float>& expected) {
  const ParameterStore store(model, 1, false);
  const std::vector<float> scales = *LayerScales(model, store, 0.5);
  size_t found = 0;
  for (size_t i = 0; i < scales.size(); ++i) {
    const auto it = expected.find(store.entries()[i].name);
    if (it == expected.end()) continue;
    EXPECT_EQ(scales[i], it->second) << it->first;
    ++found;
  }
  EXPECT_EQ(found, expected.size());
}

// Five layers: the stem, three pairs, the head. As timm's param_groups_layer_decay has them.
TEST(LayerDecay, HalvesTheRateWithEveryPairOfDaVit) {
  ExpectScales(*Make("davit", absl::StrCat(kSmall, "}")),
               {{"head.fc.weight", 1.0f},
                {"head.norm.bias", 1.0f},
                {"stages.1.blocks.1.1.mlp.fc2.bias", 0.5f},
                {"stages.1.blocks.0.0.norm1.weight", 0.25f},
                {"stages.1.downsample.conv.weight", 0.25f},
                {"stages.0.blocks.0.1.attn.qkv.weight", 0.125f},
                {"stem.conv.bias", 0.0625f}});
}

TEST(LayerDecay, CountsANormBeforeTheHeadOfDaVitAsALayer) {
  ExpectScales(*Make("davit", absl::StrCat(kSmall, ", head_norm_first: true}")),
               {{"norm_pre.weight", 0.5f}, {"stem.conv.bias", 0.03125f}});
}

// Four layers: the stem, two stages, the head. As timm's param_groups_layer_decay has them.
TEST(LayerDecay, HalvesTheRateWithEveryStageOfMaxVit) {
  const std::string small =
      "{embed_dim: [8, 16], depths: [1, 2], stem_width: [4, 8], transformer_cfg: {dim_head: 4}, "
      "num_classes: 5, head_hidden_size: ";
  ExpectScales(*Make("maxvit", small + "16}"),
               {{"head.fc.weight", 1.0f},
                {"head.pre_logits.fc.bias", 1.0f},
                {"head.norm.weight", 1.0f},
                {"stages.1.blocks.1.attn_grid.mlp.fc2.weight", 0.5f},
                {"stages.1.blocks.0.conv.shortcut.expand.weight", 0.5f},
                {"stages.0.blocks.0.attn_block.attn.rel_pos.relative_position_bias_table", 0.25f},
                {"stages.0.blocks.0.conv.pre_norm.bias", 0.25f},
                {"stem.norm1.weight", 0.125f}});
  // A norm of the last map belongs to the last stage.
  ExpectScales(*Make("maxvit", small + "0}"),
               {{"head.fc.bias", 1.0f}, {"norm.weight", 0.5f}, {"stem.conv1.weight", 0.125f}});
}

// Five layers: the stem, three blocks, the head.
TEST(LayerDecay, HalvesTheRateWithEveryBlockOfBiFormer) {
  const std::string small =
      "{depth: [1, 2], embed_dim: [8, 16], head_dim: 4, mlp_ratios: [3, 2], n_win: [3, 3], "
      "topks: [2, -2], ";
  ExpectScales(*Make("biformer", small + "num_classes: 5}"),
               {{"head.weight", 1.0f},
                {"norm.weight", 0.5f},
                {"stages.1.1.attn.proj.weight", 0.5f},
                {"stages.1.0.mlp.3.bias", 0.25f},
                {"downsample_layers.1.0.weight", 0.25f},
                {"stages.0.0.pos_embed.weight", 0.125f},
                {"downsample_layers.0.3.weight", 0.0625f}});
  ExpectScales(*Make("biformer", small + "layout: stl}"),
               {{"stages.1.blocks.1.attn.proj.weight", 0.5f},
                {"stages.1.blocks.0.norm1.weight", 0.25f},
                {"stages.0.blocks.0.attn.wo.weight", 0.125f}});
  // Without a head the last block has the full rate.
  ExpectScales(*Make("biformer", small + "extra_norms: true}"),
               {{"extra_norms.1.weight", 1.0f},
                {"stages.1.1.norm1.weight", 1.0f},
                {"extra_norms.0.bias", 0.25f},
                {"downsample_layers.0.0.weight", 0.125f}});
}

// Five layers: the stem, three blocks, the head.
TEST(LayerDecay, HalvesTheRateWithEveryBlockOfTransNext) {
  ExpectScales(*Make("transnext",
                     "{embed_dims: [8, 32], num_heads: [1, 2], mlp_ratios: [2, 3], depths: [1, 2], "
                     "num_classes: 5, sr_ratios: [4, 1], window_size: [3, 0]}"),
               {{"head.weight", 1.0f},
                {"norm2.bias", 0.5f},
                {"block2.1.mlp.dwconv.dwconv.weight", 0.5f},
                {"block2.0.attn.qkv.weight", 0.25f},
                {"patch_embed2.proj.weight", 0.25f},
                {"norm1.weight", 0.125f},
                {"block1.0.attn.learnable_tokens", 0.125f},
                {"patch_embed1.norm.weight", 0.0625f}});
}

// One step of SGD moves each parameter by its gradient times the rate of its layer.
TEST(LayerDecay, ReachesTheOptimizer) {
  const auto model = Make("davit", absl::StrCat(kSmall, "}"));
  ParameterStore store(*model, 1, false);
  std::fill_n(store.values().data<float>(), store.values().numel(), 0.0f);
  std::fill_n(store.grads().data<float>(), store.grads().numel(), 1.0f);
  OptimConfig config;
  config.name = "sgd";
  config.momentum = 0;
  config.nesterov = false;
  const std::vector<float> scales = *LayerScales(*model, store, 0.5);
  Optimizer optimizer(config, store, 0, scales);
  optimizer.Step(0.5, 1.0);
  for (size_t i = 0; i < scales.size(); ++i) {
    const Tensor& value = store.entries()[i].parameter->value();
    EXPECT_EQ(value.data<float>()[value.numel() - 1], -0.5f * scales[i]) << store.entries()[i].name;
  }
}

TEST(LayerDecay, NeedsAnOrderOfLayers) {
  class Other : public ImageModel {
   public:
    Other() { AddParameter("weight", {1}, Init::Ones()); }
    Tensor Forward(const Tensor& images, const ForwardContext&) const override { return images; }
    int64_t num_classes() const override { return 1; }
    int64_t in_chans() const override { return 3; }
    std::vector<StageCost> Costs(int64_t, int64_t) const override { return {}; }
    ConfigNode Options() const override { return {}; }
  };
  Other other;
  const ParameterStore store(other, 0, false);
  EXPECT_THAT(*LayerScales(other, store, 1.0), testing::ElementsAre(1.0f));
  EXPECT_EQ(LayerScales(other, store, 0.9).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tessera::train
