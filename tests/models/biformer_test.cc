#include "models/biformer.h"

#include <gmock/gmock.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "models/registry.h"
#include "tests/models/model_testing.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

// Two narrow stages, the second with attention among all tokens, and more options.
std::unique_ptr<ImageModel> MakeSmall(const std::string& more = "") {
  return MakeModel("biformer",
                   "{depth: [1, 2], embed_dim: [8, 16], head_dim: 4, mlp_ratios: [3, 2], n_win: "
                   "[3, 3], topks: [2, -2], num_classes: 5}",
                   absl::StrCat("{", more, "}"));
}

const std::string kLayouts[] = {"layout: biformer", "layout: stl", "layout: stl_nchw"};

std::map<std::string, Shape> StateOf(ImageModel& model) {
  std::map<std::string, Shape> state;
  model.VisitParameters([&](const std::string& n, Parameter& p) { state[n] = p.shape(); });
  model.VisitBuffers([&](const std::string& n, Buffer& b) { state[n] = b.shape(); });
  return state;
}

struct Figures {
  int64_t parameters;
  int64_t statistics;  // floats of the batch norms
  double gmacs;
};

TEST(BiFormer, VariantsHaveThePublishedParametersAndMultiplyAdds) {
  const std::map<std::string, Figures> published = {
      {"biformer_tiny", {13'142'760, 3008, 2.216}},
      {"biformer_small", {25'536'232, 3008, 4.464}},
      {"biformer_base", {56'804'968, 4512, 9.759}},
      {"biformer_stl", {28'372'552, 3072, 4.574}},
      {"biformer_stl_nchw", {28'372'552, 3072, 4.574}}};
  for (const auto& [name, figures] : published) {
    SCOPED_TRACE(name);
    const auto model = MakeModel(name, "{}");
    int64_t parameters = 0, statistics = 0;
    model->VisitParameters(
        [&](const std::string&, Parameter& p) { parameters += p.shape().numel(); });
    model->VisitBuffers([&](const std::string&, Buffer& b) {
      if (b.dtype() == DType::kF32) statistics += b.shape().numel();
    });
    EXPECT_EQ(parameters, figures.parameters);
    EXPECT_EQ(statistics, figures.statistics);
    EXPECT_NEAR(Gmacs(*model, 224), figures.gmacs, 0.002 * figures.gmacs);
  }
}

TEST(BiFormer, StateHasTheNamesOfTheOfficialCode) {
  const auto tiny = StateOf(*MakeModel("biformer_tiny", "{}"));
  EXPECT_EQ(tiny.size(), 264);
  EXPECT_EQ(tiny.at("downsample_layers.0.0.weight"), Shape({32, 3, 3, 3}));
  EXPECT_EQ(tiny.at("downsample_layers.0.3.weight"), Shape({64, 32, 3, 3}));
  EXPECT_EQ(tiny.at("downsample_layers.0.4.running_var"), Shape({64}));
  EXPECT_EQ(tiny.at("downsample_layers.3.1.num_batches_tracked"), Shape({}));
  EXPECT_EQ(tiny.at("stages.1.1.pos_embed.weight"), Shape({128, 1, 3, 3}));
  EXPECT_EQ(tiny.at("stages.2.7.attn.qkv.qkv.bias"), Shape({768}));
  EXPECT_EQ(tiny.at("stages.2.7.attn.wo.weight"), Shape({256, 256}));
  EXPECT_EQ(tiny.at("stages.2.7.attn.lepe.weight"), Shape({256, 1, 5, 5}));
  EXPECT_EQ(tiny.at("stages.3.0.attn.qkv.weight"), Shape({1536, 512}));
  EXPECT_EQ(tiny.count("stages.3.0.attn.qkv.bias"), 0);
  EXPECT_EQ(tiny.at("stages.3.0.attn.proj.bias"), Shape({512}));
  EXPECT_EQ(tiny.at("stages.3.0.mlp.3.weight"), Shape({512, 1536}));
  EXPECT_EQ(tiny.at("norm.running_mean"), Shape({512}));
  EXPECT_EQ(tiny.at("head.weight"), Shape({1000, 512}));
  const auto stl = StateOf(*MakeModel("biformer_stl", "{}"));
  EXPECT_EQ(stl.size(), 201);
  EXPECT_EQ(stl.at("downsample_layers.1.1.weight"), Shape({192, 96, 2, 2}));
  EXPECT_EQ(stl.at("stages.0.blocks.1.mlp.2.weight"), Shape({96, 384}));
  const auto nchw = StateOf(*MakeModel("biformer_stl_nchw", "{}"));
  EXPECT_EQ(nchw.at("stages.0.blocks.0.attn.qkv_linear.weight"), Shape({288, 96, 1, 1}));
  EXPECT_EQ(nchw.at("stages.0.blocks.0.attn.output_linear.bias"), Shape({96}));
  EXPECT_EQ(nchw.at("stages.3.blocks.0.attn.qkv.weight"), Shape({2304, 768, 1, 1}));
  EXPECT_EQ(nchw.at("stages.3.blocks.0.mlp.0.weight"), Shape({3072, 768, 1, 1}));
  const auto backbone = StateOf(*MakeSmall("extra_norms: true"));
  EXPECT_EQ(backbone.at("extra_norms.1.weight"), Shape({16}));
  EXPECT_EQ(backbone.count("head.weight") + backbone.count("norm.weight"), 0);
}

TEST(BiFormer, TakesAnySizeAndKeepsImagesApart) {
  for (const std::string& layout : kLayouts) {
    const auto model = MakeSmall(layout);
    const ParameterStore store(*model, 1, true);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      ForwardContext context;
      context.compute_dtype = dtype;
      for (const auto& [height, width] :
           std::vector<std::pair<int64_t, int64_t>>{{24, 24}, {37, 50}, {8, 61}}) {
        const Tensor images = RandomTensor({2, height, width, 3}, DType::kF32, 2);
        const Tensor logits = model->Forward(images, context);
        ASSERT_EQ(logits.shape(), Shape({2, 5}));
        const Tensor one = model->Forward(images.Slice(1, 2), context);
        for (int64_t i = 0; i < 5; ++i) {
          EXPECT_NEAR(At(one, i), At(logits, 5 + i), dtype == DType::kF32 ? 1e-5 : 3e-2);
        }
      }
    }
  }
}

TEST(BiFormer, ReturnsTheMapsOfAllStages) {
  const auto model = MakeSmall("extra_norms: true");
  const ParameterStore store(*model, 1, false);
  const auto& biformer = static_cast<const BiFormer&>(*model);
  const Tensor images = RandomTensor({1, 50, 37, 3}, DType::kF32, 2);
  const std::vector<Tensor> features = biformer.ForwardFeatures(images, ForwardContext());
  ASSERT_EQ(features.size(), 2);
  EXPECT_EQ(features[0].shape(), Shape({1, 13, 10, 8}));
  EXPECT_EQ(features[1].shape(), Shape({1, 7, 5, 16}));
  EXPECT_EQ(model->num_classes(), 0);
  EXPECT_EQ(model->Forward(images, ForwardContext()).shape(), Shape({1, 16}));
}

TEST(BiFormer, RefusesOptionsThatDoNotFitEachOther) {
  const std::pair<const char*, const char*> wrong[] = {
      {"{depth: []}", "at least one stage"},
      {"{topks: [1, 4]}", "one entry for each of the 4 stages"},
      {"{topks: [0, 4, 16, -2]}", "nothing to attend to"},
      {"{embed_dim: [64, 120, 256, 512]}", "heads of head_dim 32"},
      {"{embed_dim: [64, 128, 256, 500]}", "8 heads"},
      {"{mlp_ratios: [3, 3, 3, 0]}", "no hidden channel"},
      {"{embed_dim: [3, 8, 8, 8], head_dim: 1}", "even number"},
      {"{layout: swin}", "layout"}};
  for (const auto& [options, message] : wrong) {
    const auto node = ParseYaml(options, "test");
    const auto model = (*FindModel("biformer"))->create(*node);
    ASSERT_FALSE(model.ok()) << options;
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace tessera
