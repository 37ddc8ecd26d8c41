#include "models/maxvit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "absl/strings/match.h"
#include "core/check.h"
#include "models/registry.h"
#include "tests/models/model_testing.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::unique_ptr<ImageModel>> Create(const std::string& name,
                                                   const std::string& options) {
  const auto node = ParseYaml(options, "test");
  CHECK(node.ok()) << node.status();
  return (*FindModel(name))->create(*node);
}

// Two narrow stages with windows of 2 x 3, for images of 16 x 24, with more options.
std::string Small(const std::string& more) {
  ConfigNode options = *ParseYaml(
      "{embed_dim: [8, 16], depths: [1, 2], stem_width: [4, 8], num_classes: 5, "
      "head_hidden_size: 16, transformer_cfg: {dim_head: 4, window_size: [2, 3], grid_size: [2, "
      "3]}}",
      "test");
  MergeNode(*ParseYaml(absl::StrCat("{", more, "}"), "test"), &options);
  return DumpYaml(options);
}

struct Figures {
  int64_t parameters;
  int64_t buffers;
  double gmacs;
};

int64_t BufferSize(ImageModel& model) {
  int64_t size = 0;
  model.VisitBuffers([&](const std::string&, Buffer& b) {
    if (b.dtype() == DType::kF32) size += b.shape().numel();
  });
  return size;
}

TEST(MaxVit, VariantsHaveThePublishedParametersAndMultiplyAdds) {
  const std::map<std::string, Figures> published = {
      {"maxvit_tiny_tf_224", {30'916'528, 47'616, 5.55}},
      {"maxvit_tiny_tf_384", {30'977'008, 47'616, 17.39}},
      {"maxvit_tiny_tf_512", {31'049'584, 47'616, 33.25}},
      {"maxvit_small_tf_224", {68'927'956, 71'296, 11.59}},
      {"maxvit_small_tf_384", {69'018'676, 71'296, 35.67}},
      {"maxvit_base_tf_224", {119'467'708, 147'328, 23.92}},
      {"maxvit_base_tf_512", {119'876'380, 147'328, 137.41}},
      {"maxvit_large_tf_224", {211'785'560, 196'608, 43.52}},
      {"maxvit_large_tf_384", {212'033'240, 196'608, 132.09}},
      {"maxvit_xlarge_tf_384", {475'323'472, 294'912, 292.08}}};
  for (const auto& [name, figures] : published) {
    SCOPED_TRACE(name);
    const auto model = MakeModel(name, "{}");
    int64_t parameters = 0;
    model->VisitParameters(
        [&](const std::string&, Parameter& p) { parameters += p.shape().numel(); });
    EXPECT_EQ(parameters, figures.parameters);
    EXPECT_EQ(BufferSize(*model), figures.buffers);
    const int64_t size = (*FindModel(name))->image_size;
    // The published figures count the products by which the position bias is looked up there.
    EXPECT_NEAR(Gmacs(*model, size), figures.gmacs, 0.012 * figures.gmacs);
    EXPECT_TRUE(model->CheckImageSize(size, size).ok());
  }
}

TEST(MaxVit, OtherFamilyHasThePublishedParameters) {
  for (const auto& [name, expected] :
       std::map<std::string, int64_t>{{"maxvit_nano_rw_256", 15'451'148},
                                      {"maxvit_tiny_rw_224", 29'057'312},
                                      {"maxvit_rmlp_pico_rw_256", 7'515'980},
                                      {"maxvit_rmlp_nano_rw_256", 15'501'452},
                                      {"maxvit_rmlp_tiny_rw_256", 29'148'896},
                                      {"maxvit_rmlp_small_rw_224", 64'895'044},
                                      {"maxvit_rmlp_base_rw_224", 116'135'788},
                                      {"maxvit_rmlp_base_rw_384", 116'135'788}}) {
    int64_t parameters = 0;
    MakeModel(name, "{}")->VisitParameters([&](const std::string&, Parameter& p) {
      parameters += p.shape().numel();
    });
    EXPECT_EQ(parameters, expected) << name;
  }
}

TEST(MaxVit, TrainsUnderEveryOption) {
  for (const char* options :
       {"", "stem_bias: false", "head_hidden_size: 0", "num_classes: 0", "in_chans: 1",
        "drop_rate: 0.5", "drop_path_rate: 0.5", "conv_cfg: {expand_output: false}",
        "conv_cfg: {output_bias: false}", "conv_cfg: {act_layer: silu}", "conv_cfg: {padding: ''}",
        "conv_cfg: {norm_frozen: true}", "conv_cfg: {attn_ratio: 1}",
        "transformer_cfg: {dim_head: 4, window_size: [2, 3], grid_size: [1, 1], head_first: true}",
        "transformer_cfg: {dim_head: 8, window_size: [1, 3], grid_size: [2, 1], rel_pos_type: "
        "bias, "
        "act_layer: gelu}",
        "transformer_cfg: {dim_head: 4, window_size: [2, 3], grid_size: [2, 3], rel_pos_type: "
        "mlp}",
        "transformer_cfg: {init_values: 0.1}"}) {
    SCOPED_TRACE(options);
    ConfigNode node = *ParseYaml(Small(""), "test");
    MergeNode(*ParseYaml(absl::StrCat("{", options, "}"), "test"), &node);
    auto created = (*FindModel("maxvit"))->create(node);
    ASSERT_TRUE(created.ok()) << created.status();
    ImageModel& model = **created;
    for (const bool bf16 : {false, true}) {
      ParameterStore store(model, 1, bf16);
      const ForwardContext context = {.training = true,
                                      .compute_dtype = bf16 ? DType::kBF16 : DType::kF32};
      const Tensor images = RandomTensor({2, 16, 24, model.in_chans()}, DType::kF32, 2);
      Tape tape;
      store.Watch(tape, false);
      const Tensor y = model.Forward(images, context);
      ASSERT_EQ(y.dim(0), 2);
      for (int64_t i = 0; i < y.numel(); ++i) ASSERT_TRUE(std::isfinite(At(y, i)));
      EXPECT_TRUE((*FindModel("maxvit"))->create(model.Options()).ok());
    }
  }
}

// Factors of zero leave the convolutions alone.
TEST(MaxVit, LayerScaleIsOnEveryBranchOfAttentionAndMlp) {
  const auto model = MakeModel("maxvit", Small("transformer_cfg: {init_values: 1e-6}"));
  const ParameterStore store(*model, 1, false);
  int scales = 0;
  for (const ParameterStore::Entry& entry : store.entries()) {
    if (!absl::EndsWith(entry.name, ".gamma")) continue;
    ++scales;
    EXPECT_EQ(At(entry.parameter->value(), 3), 1e-6f) << entry.name;
    std::fill_n(entry.parameter->value().data<float>(), entry.parameter->shape().numel(), 0.0f);
  }
  EXPECT_EQ(scales, 3 * 4);
  std::map<std::string, Tensor> taps;
  ForwardContext context;
  context.tap = [&](absl::string_view name, const Tensor& y) {
    taps[std::string(name)] = y.Clone();
  };
  model->Forward(RandomTensor({2, 16, 24, 3}, DType::kF32, 2), context);
  for (const char* block : {"stages.0.blocks.0.", "stages.1.blocks.1."}) {
    const std::string name = block;
    EXPECT_TRUE(SameBits(taps.at(name + "attn_grid"), taps.at(name + "conv"))) << name;
  }
}

TEST(MaxVit, ImagesThatDoNotDivideIntoWindowsAreErrorsThatSayWhatDoes) {
  const auto model = MakeModel("maxvit_tiny_tf_224", "{num_classes: 1}");
  EXPECT_TRUE(model->CheckImageSize(448, 224).ok());
  const std::string error(model->CheckImageSize(256, 256).message());
  EXPECT_THAT(error, HasSubstr("64x64 in stage 0"));
  EXPECT_THAT(error, HasSubstr("multiples of 224x224"));
  EXPECT_THAT(error, HasSubstr("model.transformer_cfg.window_size=[8, 8]"));
  const auto symmetric = MakeModel("maxvit", Small("conv_cfg: {padding: ''}"));
  EXPECT_THAT(std::string(symmetric->CheckImageSize(14, 24).message()), HasSubstr("padding=same"));
}

TEST(MaxVit, BadOptionsAreErrorsThatNameThem) {
  for (const auto& [options, expected] : std::map<std::string, std::string>{
           {"{depths: [], embed_dim: []}", "depths: "},
           {"{depths: [1]}", "embed_dim: expected one entry"},
           {"{stem_width: [3]}", "stem_width: expected two"},
           {"{embed_dim: [33, 64, 64, 64]}", "embed_dim: 33 channels"},
           {"{transformer_cfg: {window_size: [7]}}", "window_size: expected two"},
           {"{conv_cfg: {attn_ratio: 0.0001}}", "attn_ratio: leaves"},
           {"{conv_cfg: {act_layer: relu}}", "act_layer"}}) {
    const auto model = Create("maxvit", options);
    ASSERT_FALSE(model.ok()) << options;
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(expected));
  }
}

TEST(MaxVit, TablesOfAnotherWindowAreResized) {
  const ModelVariant& variant = **FindModel("maxvit_tiny_tf_384");
  const std::string name = "stages.0.blocks.0.attn_grid.attn.rel_pos.relative_position_bias_table";
  const Tensor table = RandomTensor({2, 13, 13}, DType::kF32, 1);
  const auto resized = variant.resize_weight(name, table, {2, 23, 23});
  ASSERT_TRUE(resized.has_value());
  EXPECT_EQ(resized->shape(), Shape({2, 23, 23}));
  EXPECT_FALSE(variant.resize_weight("head.fc.weight", table, {2, 23, 23}).has_value());
}

}  // namespace
}  // namespace tessera
