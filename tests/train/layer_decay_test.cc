#include "train/layer_decay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/check.h"
#include "models/registry.h"
#include "train/optimizer.h"

namespace tessera::train {
namespace {

std::unique_ptr<ImageModel> Make(const std::string& options) {
  auto model = (*FindModel("davit"))->create(*ParseYaml(options, "test"));
  CHECK(model.ok()) << model.status();
  return *std::move(model);
}

constexpr const char* kSmall =
    "{embed_dims: [8, 16], num_heads: [1, 2], depths: [1, 2], window_size: 3, num_classes: 5";

float ScaleOf(const ImageModel& model, const ParameterStore& store, const std::string& name) {
  const std::vector<float> scales = *LayerScales(model, store, 0.5);
  for (size_t i = 0; i < scales.size(); ++i) {
    if (store.entries()[i].name == name) return scales[i];
  }
  LOG(FATAL) << "no " << name;
}

// Five layers: the stem, three pairs, the head. As timm's param_groups_layer_decay has them.
TEST(LayerDecay, HalvesTheRateWithEveryLayerFromTheHead) {
  const auto model = Make(absl::StrCat(kSmall, "}"));
  const ParameterStore store(*model, 1, false);
  EXPECT_EQ(ScaleOf(*model, store, "head.fc.weight"), 1.0f);
  EXPECT_EQ(ScaleOf(*model, store, "head.norm.bias"), 1.0f);
  EXPECT_EQ(ScaleOf(*model, store, "stages.1.blocks.1.1.mlp.fc2.bias"), 0.5f);
  EXPECT_EQ(ScaleOf(*model, store, "stages.1.blocks.0.0.norm1.weight"), 0.25f);
  EXPECT_EQ(ScaleOf(*model, store, "stages.1.downsample.conv.weight"), 0.25f);
  EXPECT_EQ(ScaleOf(*model, store, "stages.0.blocks.0.1.attn.qkv.weight"), 0.125f);
  EXPECT_EQ(ScaleOf(*model, store, "stem.conv.bias"), 0.0625f);
}

TEST(LayerDecay, CountsANormBeforeTheHeadAsALayer) {
  const auto model = Make(absl::StrCat(kSmall, ", head_norm_first: true}"));
  const ParameterStore store(*model, 1, false);
  EXPECT_EQ(ScaleOf(*model, store, "norm_pre.weight"), 0.5f);
  EXPECT_EQ(ScaleOf(*model, store, "stem.conv.bias"), 0.03125f);
}

// One step of SGD moves each parameter by its gradient times the rate of its layer.
TEST(LayerDecay, ReachesTheOptimizer) {
  const auto model = Make(absl::StrCat(kSmall, "}"));
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
