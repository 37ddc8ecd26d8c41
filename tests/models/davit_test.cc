#include "models/davit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "core/check.h"
#include "models/registry.h"
#include "tests/models/model_testing.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

// A davit of two narrow stages, with more options.
std::unique_ptr<ImageModel> MakeSmall(const std::string& more = "") {
  return MakeModel("davit",
                   "{embed_dims: [8, 16], num_heads: [1, 2], window_size: 3, num_classes: 5, "
                   "depths: [1, 2]}",
                   absl::StrCat("{", more, "}"));
}

struct Figures {
  int64_t parameters;
  int64_t image_size;
  double gmacs;
};

// Published figures; without classifier for the image towers of Florence-2.
const std::map<std::string, Figures>& Published() {
  static const auto* const figures = new std::map<std::string, Figures>{
      {"davit_tiny", {28'360'168, 224, 4.52}},     {"davit_small", {49'745'896, 224, 8.77}},
      {"davit_base", {87'954'408, 224, 15.47}},    {"davit_large", {196'811'752, 224, 34.54}},
      {"davit_huge", {348'922'856, 224, 61.16}},   {"davit_giant", {1'406'470'120, 224, 192.79}},
      {"davit_base_fl", {90'370'048, 768, 190.3}}, {"davit_huge_fl", {360'636'416, 768, 744.8}}};
  return *figures;
}

TEST(DaVit, VariantsHaveThePublishedParametersAndMultiplyAdds) {
  for (const auto& [name, figures] : Published()) {
    SCOPED_TRACE(name);
    const auto model = MakeModel(name, "{}");
    int64_t parameters = 0;
    model->VisitParameters(
        [&](const std::string&, Parameter& p) { parameters += p.shape().numel(); });
    EXPECT_EQ(parameters, figures.parameters);
    EXPECT_EQ((*FindModel(name))->image_size, figures.image_size);
    EXPECT_NEAR(Gmacs(*model, figures.image_size), figures.gmacs, 0.005 * figures.gmacs);
  }
  EXPECT_NEAR(Gmacs(*MakeModel("davit_base_fl", "{}"), 224), 20.89, 0.005 * 20.89);
  EXPECT_NEAR(Gmacs(*MakeModel("davit_huge_fl", "{}"), 224), 81.06, 0.005 * 81.06);
}

TEST(DaVit, NamesParametersAsTimmDoes) {
  const auto names = [](const std::string& options) {
    std::set<std::string> result;
    MakeSmall(options)->VisitParameters(
        [&](const std::string& name, Parameter&) { result.insert(name); });
    return result;
  };
  const std::set<std::string> plain = names("");
  for (const char* name :
       {"stem.conv.weight", "stem.norm.bias", "stages.0.blocks.0.0.cpe1.proj.weight",
        "stages.0.blocks.0.1.attn.qkv.bias", "stages.1.downsample.norm.weight",
        "stages.1.downsample.conv.bias", "stages.1.blocks.1.1.mlp.fc2.weight",
        "stages.1.blocks.0.0.norm2.weight", "head.norm.weight", "head.fc.bias"}) {
    EXPECT_EQ(plain.count(name), 1u) << name;
  }
  EXPECT_EQ(plain.count("stages.0.downsample.norm.weight"), 0u);
  EXPECT_EQ(names("named_blocks: true").count("stages.0.blocks.0.channel_block.attn.proj.weight"),
            1u);
  EXPECT_EQ(names("qkv_bias: false").count("stages.0.blocks.0.0.attn.qkv.bias"), 0u);
  EXPECT_EQ(names("ffn: false").count("stages.0.blocks.0.0.norm2.weight"), 0u);
  const std::set<std::string> norm_first = names("head_norm_first: true");
  EXPECT_EQ(norm_first.count("norm_pre.weight"), 1u);
  EXPECT_EQ(norm_first.count("head.norm.weight"), 0u);
}

// Every option away from its default, alone.
const std::vector<std::string> kOptions = {"",
                                           "cpe_act: true",
                                           "ffn: false",
                                           "qkv_bias: false",
                                           "attn_types: [channel, spatial]",
                                           "attn_types: [spatial]",
                                           "attn_types: [channel, channel, spatial]",
                                           "head_norm_first: true",
                                           "down_kernel_size: 3",
                                           "channel_attn_v2: true",
                                           "named_blocks: true",
                                           "mlp_ratio: 1.3",
                                           "window_size: 1",
                                           "window_size: 16",
                                           "in_chans: 1",
                                           "num_classes: 1",
                                           "num_classes: 0",
                                           "drop_rate: 0.5",
                                           "drop_path_rate: 0.5",
                                           "num_heads: [8, 16]",
                                           "depths: [1, 1]"};

TEST(DaVit, TrainsUnderEveryOption) {
  for (std::string options : kOptions) {
    SCOPED_TRACE(options);
    std::string yaml =
        "{embed_dims: [8, 16], num_heads: [1, 2], window_size: 3, num_classes: 5, depths: [1, 1]}";
    const auto base = ParseYaml(yaml, "test");
    ConfigNode node = *base;
    if (!options.empty()) MergeNode(*ParseYaml("{" + options + "}", "test"), &node);
    const auto created = (*FindModel("davit"))->create(node);
    ASSERT_TRUE(created.ok()) << created.status();
    ImageModel& model = **created;
    for (const bool bf16 : {false, true}) {
      ParameterStore store(model, 1, bf16);
      ForwardContext context = {.training = true,
                                .compute_dtype = bf16 ? DType::kBF16 : DType::kF32};
      const int64_t width = model.num_classes() > 0 ? model.num_classes() : 16;
      const Tensor images = RandomTensor({2, 21, 18, model.in_chans()}, DType::kF32, 2);
      Tape tape;
      store.Watch(tape, false);
      const Tensor y = model.Forward(images, context);
      ASSERT_EQ(y.shape(), Shape({2, width}));
      for (int64_t i = 0; i < y.numel(); ++i) ASSERT_TRUE(std::isfinite(At(y, i)));
      // The options come back whole.
      EXPECT_TRUE((*FindModel("davit"))->create(model.Options()).ok());
    }
  }
}

TEST(DaVit, TakesImagesOfAnySize) {
  const auto model = MakeSmall();
  const ParameterStore store(*model, 1, true);
  for (const auto& [h, w] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {1, 40}, {3, 2}, {5, 5}, {16, 16}, {31, 33}, {64, 12}}) {
    SCOPED_TRACE(absl::StrCat(h, "x", w));
    const Tensor images = RandomTensor({2, h, w, 3}, DType::kF32, 3);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor y = model->Forward(images, {.compute_dtype = dtype});
      ASSERT_EQ(y.shape(), Shape({2, 5}));
      for (int64_t i = 0; i < y.numel(); ++i) EXPECT_TRUE(std::isfinite(At(y, i)));
    }
    const std::vector<StageCost> costs = model->Costs(h, w);
    EXPECT_EQ(costs[1].output, Shape({(h + 3) / 4, (w + 3) / 4, 8}));
    EXPECT_EQ(costs[2].output, Shape({((h + 3) / 4 + 1) / 2, ((w + 3) / 4 + 1) / 2, 16}));
  }
}

TEST(DaVit, DropPathRatesGrowByPairToTheLargest) {
  // Four pairs and rate 0.9: the first pair never drops, the last nearly always.
  const auto model =
      MakeModel("davit",
                "{embed_dims: [8, 8], num_heads: [1, 1], depths: [1, 3], num_classes: 2, "
                "window_size: 3, drop_path_rate: 0.9}");
  const ParameterStore store(*model, 1, false);
  const Tensor images = RandomTensor({1, 8, 8, 3}, DType::kF32, 5);
  const auto outputs = [&](bool training, int64_t step) {
    std::map<std::string, Tensor> result;
    ForwardContext context = {.training = training, .step = step};
    context.tap = [&](absl::string_view name, const Tensor& y) {
      result[std::string(name)] = y.Clone();
    };
    model->Forward(images, context);
    return result;
  };
  const std::map<std::string, Tensor> evaluated = outputs(false, 0);
  int differ = 0;
  for (int64_t step = 0; step < 20; ++step) {
    const std::map<std::string, Tensor> trained = outputs(true, step);
    EXPECT_TRUE(SameBits(trained.at("stages.0"), evaluated.at("stages.0")));
    differ += !SameBits(trained.at("stages.1"), evaluated.at("stages.1"));
  }
  EXPECT_EQ(differ, 20);
}

TEST(DaVit, BadOptionsAreErrorsThatNameThem) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{depths: []}", "depths: "},
      {"{depths: [1, 0, 1, 1]}", "depths[1]"},
      {"{depths: [1, 1]}", "embed_dims: expected one entry for each of the 2 stages"},
      {"{num_heads: [3, 6, 12]}", "num_heads: expected one entry"},
      {"{num_heads: [5, 6, 12, 24]}", "96 channels of stage 0 do not divide into 5 heads"},
      {"{embed_dims: [0, 192, 384, 768]}", "embed_dims[0]"},
      {"{window_size: 0}", "window_size"},
      {"{window_size: wide}", "window_size: expected an integer"},
      {"{mlp_ratio: 0}", "mlp_ratio: leaves no hidden channel in stage 0"},
      {"{embed_dims: [96, 192, 384, 24], mlp_ratio: 0.02}", "no hidden channel in stage 3"},
      {"{mlp_ratio: 0.001}", "mlp_ratio: leaves no hidden channel"},
      {"{mlp_ratio: -1}", "mlp_ratio"},
      {"{attn_types: []}", "attn_types: expected at least one"},
      {"{attn_types: [spatial, chanel]}", "did you mean 'channel'?"},
      {"{attn_types: [spatial, spatial], named_blocks: true}", "named_blocks: "},
      {"{down_kernel_size: 4}", "down_kernel_size"},
      {"{num_classes: -1}", "num_classes"},
      {"{in_chans: 0}", "in_chans"},
      {"{drop_rate: 1}", "drop_rate"},
      {"{drop_path_rate: 1.5}", "drop_path_rate"},
      {"{ffn: maybe}", "ffn: expected true or false"},
      {"{dephts: [1]}", "did you mean 'depths'?"},
      {"[1, 2]", ""},
      {"7", ""}};
  for (const auto& [yaml, message] : cases) {
    SCOPED_TRACE(yaml);
    const auto node = ParseYaml(yaml, "a.yaml");
    ASSERT_TRUE(node.ok());
    const auto model = (*FindModel("davit_tiny"))->create(*node);
    ASSERT_FALSE(model.ok());
    EXPECT_EQ(ExitCode(model.status()), 2);
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(message));
    EXPECT_THAT(std::string(model.status().message()), HasSubstr("a.yaml"));
  }
}

TEST(Registry, FindsEveryModelAndDescribesItsOptions) {
  std::set<std::string> names;
  for (const ModelVariant* variant : AllModels()) {
    EXPECT_TRUE(names.insert(variant->name).second) << variant->name;
    EXPECT_EQ(*FindModel(variant->name), variant);
    EXPECT_THAT(variant->describe(), HasSubstr("num_classes"));
    EXPECT_GT(variant->image_size, 0);
  }
  EXPECT_EQ(names.count("davit"), 1u);
  const auto unknown = FindModel("davit_tinny");
  EXPECT_EQ(ExitCode(unknown.status()), 2);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("did you mean 'davit_tiny'?"));
}

TEST(DaVit, KnowsTheNamesOfOtherCheckpoints) {
  const std::vector<NameRule>& rules = (*FindModel("davit_base_fl"))->weight_names;
  const auto renamed = [&](absl::string_view name) {
    return RenameWeight(name, rules).value_or("left out");
  };
  const std::map<std::string, std::string> names = {
      {"patch_embeds.0.norm.weight", "stem.norm.weight"},
      {"patch_embeds.3.proj.bias", "stages.3.downsample.conv.bias"},
      {"main_blocks.2.8.1.cpe.1.proj.weight", "stages.2.blocks.8.1.cpe2.proj.weight"},
      {"main_blocks.0.0.0.attn.qkv.bias", "stages.0.blocks.0.0.attn.qkv.bias"},
      {"norms.bias", "head.norm.bias"},
      {"head.weight", "head.fc.weight"},
      {"head.fc.weight", "head.fc.weight"},
      {"vision_tower.convs.0.proj.weight", "stem.conv.weight"},
      {"vision_tower.convs.2.norm.bias", "stages.2.downsample.norm.bias"},
      {"vision_tower.blocks.2.7.spatial_block.conv1.fn.dw.weight",
       "stages.2.blocks.7.spatial_block.cpe1.proj.weight"},
      {"vision_tower.blocks.0.0.channel_block.channel_attn.fn.qkv.weight",
       "stages.0.blocks.0.channel_block.attn.qkv.weight"},
      {"vision_tower.blocks.0.0.spatial_block.window_attn.norm.bias",
       "stages.0.blocks.0.spatial_block.norm1.bias"},
      {"vision_tower.blocks.3.0.channel_block.ffn.fn.net.fc2.weight",
       "stages.3.blocks.0.channel_block.mlp.fc2.weight"},
      {"vision_tower.blocks.3.0.channel_block.ffn.norm.weight",
       "stages.3.blocks.0.channel_block.norm2.weight"},
      {"language_model.model.shared.weight", "left out"}};
  for (const auto& [from, to] : names) EXPECT_EQ(renamed(from), to);
  // Names of our own stay.
  for (const char* model : {"davit_tiny", "davit_base_fl"}) {
    MakeModel(model, "{}")->VisitParameters([&](const std::string& name, Parameter&) {
      EXPECT_EQ(renamed(name), name);
    });
  }
}

}  // namespace
}  // namespace tessera
