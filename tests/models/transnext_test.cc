#include "models/transnext.h"

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

// A narrow transnext of two stages, the second with attention among all positions.
std::unique_ptr<ImageModel> MakeSmall(const std::string& more = "") {
  return MakeModel("transnext",
                   "{embed_dims: [8, 32], num_heads: [1, 2], mlp_ratios: [2, 3], depths: [1, 2], "
                   "num_classes: 5, img_size: 64, sr_ratios: [4, 1], window_size: [3, 0]}",
                   absl::StrCat("{", more, "}"));
}

struct Figures {
  int64_t parameters;
  int64_t image_size;
  double gmacs;
};

const std::map<std::string, Figures>& Published() {
  static const auto* const figures =
      new std::map<std::string, Figures>{{"transnext_micro", {12'809'304, 224, 2.649}},
                                         {"transnext_tiny", {28'258'960, 224, 5.711}},
                                         {"transnext_small", {49'741'564, 224, 10.291}},
                                         {"transnext_base", {89'721'496, 224, 18.300}},
                                         {"transnext_micro_aaaa", {13'114'008, 256, 3.326}}};
  return *figures;
}

// Multiply-adds of the network behind position biases, which published figures count as if every
// image had its own: one pass over the distinct distances of each block.
double BiasGmacs(const ConfigNode& options, int64_t size) {
  TransNextConfig c;
  CHECK(ReadConfig(options, &c).ok());
  double macs = 0;
  for (size_t s = 0; s < c.depths.size(); ++s) {
    const int64_t side = size / (int64_t{4} << s), cells = side / c.sr_ratios[s];
    const auto distances = static_cast<double>(side + (cells - 1) * c.sr_ratios[s]);
    macs += static_cast<double>(c.depths[s] * 512 * (2 + c.num_heads[s])) * distances * distances;
  }
  return macs * 1e-9;
}

TEST(TransNext, VariantsHaveThePublishedParametersAndMultiplyAdds) {
  for (const auto& [name, figures] : Published()) {
    SCOPED_TRACE(name);
    const auto model = MakeModel(name, "{}");
    int64_t parameters = 0;
    model->VisitParameters(
        [&](const std::string&, Parameter& p) { parameters += p.shape().numel(); });
    EXPECT_EQ(parameters, figures.parameters);
    EXPECT_EQ((*FindModel(name))->image_size, figures.image_size);
    const double gmacs =
        Gmacs(*model, figures.image_size) + BiasGmacs(model->Options(), figures.image_size);
    EXPECT_NEAR(gmacs, figures.gmacs, 0.005 * figures.gmacs);
  }
}

TEST(TransNext, NamesParametersAsTheOfficialCheckpointsDo) {
  int64_t entries = 0;
  std::set<std::string> names;
  MakeModel("transnext_micro", "{}")->VisitParameters([&](const std::string& name, Parameter&) {
    names.insert(name);
    ++entries;
  });
  EXPECT_EQ(entries, 617);
  for (const char* name :
       {"patch_embed1.proj.weight", "patch_embed4.norm.bias", "block1.0.norm1.weight",
        "block3.14.attn.relative_pos_bias_local", "block1.1.attn.sr.weight",
        "block2.0.attn.cpb_fc1.weight", "block4.1.attn.qkv.bias", "block4.0.attn.temperature",
        "block1.0.mlp.dwconv.dwconv.weight", "norm4.weight", "head.bias"}) {
    EXPECT_EQ(names.count(name), 1u) << name;
  }
  EXPECT_EQ(names.count("block4.0.attn.kv.weight"), 0u);
  const auto wide = MakeSmall("window_size: [5, 0]");
  EXPECT_EQ(ParameterStore(*wide, 1, false).Find("block1.0.attn.learnable_tokens")->shape(),
            Shape({1, 8, 25}));
}

TEST(TransNext, TrainsUnderEveryOption) {
  for (const std::string options :
       {"", "sr_ratios: [2, 2], window_size: [5, 3]", "sr_ratios: [1, 1]", "fixed_pool_size: 3",
        "is_extrapolation: false", "is_extrapolation: false, fixed_pool_size: 2",
        "pretrain_size: 32", "in_chans: 1", "num_classes: 1", "num_classes: 0",
        "drop_path_rate: 0.5"}) {
    SCOPED_TRACE(options);
    const auto model = MakeSmall(options);
    for (const bool bf16 : {false, true}) {
      ParameterStore store(*model, 1, bf16);
      const ForwardContext context = {.training = true,
                                      .compute_dtype = bf16 ? DType::kBF16 : DType::kF32};
      const int64_t width = model->num_classes() > 0 ? model->num_classes() : 32;
      const Tensor images = RandomTensor({2, 37, 50, model->in_chans()}, DType::kF32, 2);
      Tape tape;
      store.Watch(tape, false);
      const Tensor y = model->Forward(images, context);
      ASSERT_EQ(y.shape(), Shape({2, width}));
      for (int64_t i = 0; i < y.numel(); ++i) ASSERT_TRUE(std::isfinite(At(y, i)));
      EXPECT_TRUE((*FindModel("transnext"))->create(model->Options()).ok());
    }
  }
}

TEST(TransNext, TakesImagesOfAnySize) {
  for (const char* options : {"", "is_extrapolation: false"}) {
    const auto model = MakeSmall(options);
    const ParameterStore store(*model, 1, true);
    for (const auto& [h, w] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {1, 40}, {3, 2}, {5, 5}, {16, 16}, {31, 33}, {64, 12}, {64, 64}}) {
      SCOPED_TRACE(absl::StrCat(options, " ", h, "x", w));
      const Tensor images = RandomTensor({2, h, w, 3}, DType::kF32, 3);
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        const Tensor y = model->Forward(images, {.compute_dtype = dtype});
        ASSERT_EQ(y.shape(), Shape({2, 5}));
        for (int64_t i = 0; i < y.numel(); ++i) EXPECT_TRUE(std::isfinite(At(y, i)));
      }
      const std::vector<StageCost> costs = model->Costs(h, w);
      EXPECT_EQ(costs[0].output, Shape({(h + 3) / 4, (w + 3) / 4, 8}));
      EXPECT_EQ(costs[3].output, Shape({((h + 3) / 4 + 1) / 2, ((w + 3) / 4 + 1) / 2, 32}));
    }
  }
}

// Three blocks with rates 0, 0.4 and 0.8 for each of two branches: a sample passes unchanged when
// both are dropped.
TEST(TransNext, DropPathRatesGrowByBlockToTheLargest) {
  constexpr int64_t kSamples = 500;
  const auto model = MakeSmall("drop_path_rate: 0.8");
  const ParameterStore store(*model, 1, false);
  std::map<std::string, Tensor> taps;
  ForwardContext context = {.training = true};
  context.tap = [&](absl::string_view name, const Tensor& y) {
    taps[std::string(name)] = y.Clone();
  };
  model->Forward(RandomTensor({kSamples, 8, 8, 3}, DType::kF32, 5), context);
  const auto share_unchanged = [&](const std::string& from, const std::string& to) {
    int64_t count = 0;
    for (int64_t i = 0; i < kSamples; ++i) {
      const Tensor a = taps.at(from).Slice(i, i + 1), b = taps.at(to).Slice(i, i + 1);
      count += std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
    }
    return static_cast<double>(count) / kSamples;
  };
  EXPECT_EQ(share_unchanged("patch_embed1", "block1.0"), 0);
  EXPECT_NEAR(share_unchanged("patch_embed2", "block2.0"), 0.4 * 0.4, 0.05);
  EXPECT_NEAR(share_unchanged("block2.0", "block2.1"), 0.8 * 0.8, 0.06);
}

TEST(TransNext, StartsWithTheValuesOfTheOfficialCode) {
  const auto model = MakeSmall("embed_dims: [96, 96], num_heads: [16, 4]");
  const ParameterStore store(*model, 1, false);
  const std::map<std::string, double> deviations = {
      {"patch_embed1.proj.weight", std::sqrt(2.0 / (49 * 96))},
      {"patch_embed2.proj.weight", std::sqrt(2.0 / (9 * 96))},
      {"block1.0.attn.query_embedding", 0.02},
      {"block1.0.attn.learnable_tokens", 0.02},
      {"block1.0.attn.relative_pos_bias_local", 0.0004},
      {"block1.0.attn.sr.weight", std::sqrt(2.0 / 96)},
      {"block1.0.attn.cpb_fc1.weight", 0.02},
      {"block2.1.attn.qkv.weight", 0.02},
      {"block2.1.mlp.dwconv.dwconv.weight", std::sqrt(2.0 / 9)},
      {"head.weight", 0.02}};
  for (const auto& [name, deviation] : deviations) {
    const std::vector<double> values = ToDouble(store.Find(name)->value());
    double squares = 0;
    for (const double v : values) squares += v * v;
    EXPECT_NEAR(std::sqrt(squares / static_cast<double>(values.size())), deviation,
                0.15 * deviation)
        << name;
  }
  for (const auto& [name, value] :
       std::map<std::string, double>{{"block1.0.attn.temperature", std::log(std::expm1(1 / 0.24))},
                                     {"block1.0.attn.learnable_bias", 0},
                                     {"block1.0.attn.q.bias", 0},
                                     {"patch_embed1.proj.bias", 0},
                                     {"norm2.weight", 1}}) {
    const Parameter& parameter = *store.Find(name);
    ExpectClose(parameter.value(), std::vector<double>(parameter.shape().numel(), value), 1e-6);
  }
}

// The second stage on tokens that are all alike and so small that epsilons show. Its projections
// are identities and its gates constant, so that attention and the gated unit give back what their
// norms do: 1e-5 is for patch embeddings, 1e-6 for blocks and stages.
TEST(TransNext, NormsHaveTheEpsilonsOfTheOfficialCode) {
  constexpr int64_t kDim = 32;
  const auto model = MakeSmall("depths: [1, 1], mlp_ratios: [2, 1.5]");
  const ParameterStore store(*model, 1, false);
  const auto fill = [&](const std::string& name, double value) {
    const Tensor& t = store.Find(name)->value();
    std::fill_n(t.data<float>(), t.numel(), static_cast<float>(value));
  };
  // Rows `first` and the following become the identity.
  const auto add_identity = [&](const std::string& name, int64_t first) {
    const Tensor& t = store.Find(name)->value();
    for (int64_t i = 0; i < kDim; ++i) Set(t, (first + i) * kDim + i, 1);
  };
  for (const char* name : {"patch_embed2.proj.weight", "block2.0.attn.qkv.weight",
                           "block2.0.attn.proj.weight", "block2.0.mlp.fc1.weight",
                           "block2.0.mlp.dwconv.dwconv.weight", "block2.0.mlp.fc2.weight"}) {
    fill(name, 0);
  }
  const Tensor bias = RandomTensor({kDim}, DType::kF32, 7, -2e-3, 2e-3);
  std::copy_n(bias.data<float>(), kDim,
              store.Find("patch_embed2.proj.bias")->value().data<float>());
  fill("patch_embed2.norm.weight", 1e-3);
  add_identity("block2.0.attn.qkv.weight", 2 * kDim);
  add_identity("block2.0.attn.proj.weight", 0);
  add_identity("block2.0.mlp.fc1.weight", kDim);
  add_identity("block2.0.mlp.fc2.weight", 0);
  fill("block2.0.mlp.dwconv.dwconv.bias", 1);
  std::map<std::string, std::vector<double>> taps;  // of the first token
  ForwardContext context;
  context.tap = [&](absl::string_view name, const Tensor& y) {
    if (y.dim(3) == kDim) taps[std::string(name)] = ToDouble(y.Reshape({y.numel()}).Slice(0, kDim));
  };
  const auto expect_normed = [&](const std::vector<double>& x, double eps, double factor,
                                 const std::string& tap) {
    double mean = 0, variance = 0;
    for (const double v : x) mean += v / kDim;
    for (const double v : x) variance += (v - mean) * (v - mean) / kDim;
    for (int64_t i = 0; i < kDim; ++i) {
      const double expected = factor * (x[i] - mean) / std::sqrt(variance + eps);
      EXPECT_NEAR(taps.at(tap)[i], expected, 1e-3 * factor) << tap << " " << i;
    }
  };
  const auto forward = [&] {
    model->Forward(RandomTensor({1, 32, 32, 3}, DType::kF32, 2), context);
  };
  forward();
  expect_normed(ToDouble(bias), 1e-5, 1e-3, "patch_embed2");
  const std::vector<double> x = taps.at("patch_embed2");
  expect_normed(x, 1e-6, 1, "block2.0.attn");
  fill("block2.0.attn.proj.weight", 0);
  forward();
  const double gelu_of_one = 0.5 * std::erfc(-std::sqrt(0.5));
  expect_normed(x, 1e-6, gelu_of_one, "block2.0.mlp");
  fill("block2.0.mlp.fc2.weight", 0);
  forward();
  expect_normed(x, 1e-6, 1, "norm2");
}

// Relative coordinates are scaled by the size in pre-training, whatever the images.
TEST(TransNext, KeepsTheScaleOfBiasesFromPreTraining) {
  const Tensor images = RandomTensor({1, 96, 96, 3}, DType::kF32, 6);
  const auto outputs = [&](const std::string& options) {
    const auto model = MakeSmall(options);
    const ParameterStore store(*model, 1, false);
    return ToDouble(model->Forward(images, {}));
  };
  EXPECT_EQ(outputs("img_size: 96, pretrain_size: 64"), outputs("img_size: 64"));
  EXPECT_NE(outputs("img_size: 96"), outputs("img_size: 64"));
}

TEST(TransNext, MakesTheSameBiasesForItsOwnImageSizeInBothModes) {
  const auto anew = MakeSmall(), resized = MakeSmall("is_extrapolation: false");
  const ParameterStore anew_store(*anew, 1, false), resized_store(*resized, 1, false);
  const auto outputs_differ = [&](int64_t side) {
    const Tensor images = RandomTensor({1, side, side, 3}, DType::kF32, 6);
    const Tensor a = anew->Forward(images, {}), b = resized->Forward(images, {});
    return std::memcmp(a.raw(), b.raw(), a.bytes()) != 0;
  };
  EXPECT_FALSE(outputs_differ(64));
  EXPECT_TRUE(outputs_differ(96));
}

TEST(TransNext, BadOptionsAreErrorsThatNameThem) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"{depths: []}", "depths: "},
      {"{depths: [1, 0, 1, 1]}", "depths[1]"},
      {"{depths: [1, 1]}", "embed_dims: expected one entry for each of the 2 stages"},
      {"{sr_ratios: [8, 4, 2]}", "sr_ratios: expected one entry"},
      {"{num_heads: [5, 4, 8, 16]}", "48 channels of stage 0 do not divide into 5 heads"},
      {"{window_size: [3, 4, 3, 3]}", "window_size: expected an odd number in stage 1, found 4"},
      {"{mlp_ratios: [8, 0.001, 4, 4]}", "mlp_ratios: leaves no hidden channel in stage 1"},
      {"{pretrain_size: 32}", "pretrain_size: at least 64 with 4 stages"},
      {"{img_size: 0}", "img_size"},
      {"{fixed_pool_size: -1}", "fixed_pool_size"},
      {"{drop_path_rate: 1.5}", "drop_path_rate"},
      {"{sr_ratio: [1]}", "did you mean 'sr_ratios'?"}};
  for (const auto& [yaml, message] : cases) {
    SCOPED_TRACE(yaml);
    const auto node = ParseYaml(yaml, "a.yaml");
    ASSERT_TRUE(node.ok());
    const auto model = (*FindModel("transnext_micro"))->create(*node);
    ASSERT_FALSE(model.ok());
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(message));
    EXPECT_THAT(std::string(model.status().message()), HasSubstr("a.yaml"));
  }
}

}  // namespace
}  // namespace tessera
