#include "train/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "layers/norm.h"
#include "tests/core/faulty_file_system.h"
#include "train/checkpoint.h"

namespace tessera::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Head : public Module {
 public:
  explicit Head(int64_t num_classes) {
    AddParameter("fc.weight", {num_classes, 3}, Init::Uniform(1.0));
  }
};

class Model : public Module {
 public:
  explicit Model(int64_t num_classes = 2) {
    AddParameter("stem.conv.weight", {4, 5}, Init::Uniform(1.0));
    AddParameter("stem.conv.bias", {4}, Init::Uniform(1.0));
    AddChild<Head>("head", num_classes);
  }
};

struct Built {
  explicit Built(uint64_t seed, int64_t num_classes = 2)
      : model(num_classes), store(model, seed, /*bf16_copies=*/true) {}
  float First(absl::string_view name) const { return *store.Find(name)->value().data<float>(); }
  std::vector<float> Values() const {
    return {store.values().data<float>(), store.values().data<float>() + store.values().numel()};
  }

  Model model;
  ParameterStore store;
};

class Weights : public ::testing::Test {
 protected:
  std::string ErrorOf(const std::vector<NamedTensor>& tensors, const LoadOptions& options = {}) {
    EXPECT_TRUE(WriteSafetensors(fs_, "/w", tensors).ok());
    Built built(1);
    const std::vector<float> before = built.Values();
    const absl::Status status = LoadWeights(fs_, "/w", built.store, options).status();
    if (!status.ok()) {
      EXPECT_EQ(built.Values(), before);
    }
    return std::string(status.message());
  }

  FaultyFileSystem fs_;
};

TEST_F(Weights, AreTheSameAfterExportAndLoad) {
  const Built source(1);
  Built target(2);
  ASSERT_TRUE(ExportSafetensors(fs_, "/w", source.store, {{"model", "m"}}).ok());
  const auto file = SafetensorsFile::Open(fs_, "/w");
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_EQ(file->metadata().at("model"), "m");
  ASSERT_NE(source.Values(), target.Values());
  const auto report = LoadWeights(fs_, "/w", target.store);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(source.Values(), target.Values());
  EXPECT_EQ(report->ToString(), "3 tensors loaded");
  EXPECT_EQ(float(*target.store.bf16().data<BF16>()),
            float(BF16(*target.store.values().data<float>())));
}

TEST_F(Weights, ComeFromCheckpointsAveragedOrNot) {
  const Built last(1), averaged(2);
  CheckpointContents contents;
  contents.groups["model"] = StateOf(last.store, last.store.values());
  contents.groups["ema"] = StateOf(averaged.store, averaged.store.values());
  ASSERT_TRUE(SaveCheckpoint(fs_, "/run/best", contents).ok());
  Built target(3);
  ASSERT_TRUE(LoadWeights(fs_, "/run/best", target.store).ok());
  EXPECT_EQ(target.Values(), last.Values());
  ASSERT_TRUE(LoadWeights(fs_, "/run/best", target.store, {.ema = true}).ok());
  EXPECT_EQ(target.Values(), averaged.Values());
  contents.groups.erase("ema");
  ASSERT_TRUE(SaveCheckpoint(fs_, "/run/best", contents).ok());
  EXPECT_EQ(LoadWeights(fs_, "/run/best", target.store, {.ema = true}).status().message(),
            "/run/best: holds no ema.safetensors");
}

TEST_F(Weights, ErrorsListNamesWithSuggestions) {
  const Tensor weight = Tensor::Zeros({4, 5}, DType::kF32), bias = Tensor::Zeros({4}, DType::kF32),
               head = Tensor::Zeros({2, 3}, DType::kF32);
  EXPECT_EQ(
      ErrorOf({{"stem.conv.weight", weight}, {"stem.conv.bias", bias}, {"head.fc.weight", head}}),
      "");
  EXPECT_EQ(
      ErrorOf({{"stem.conv.wieght", weight}, {"stem.conv.bias", bias}, {"head.fc.weight", weight}}),
      "/w does not fit the model: 1 of 3 tensors match\n"
      "  shape: head.fc.weight is F32[4, 5] in the file, expected F32[2, 3]\n"
      "  not in the file: stem.conv.weight; did you mean 'stem.conv.wieght'?\n"
      "  not in the model: stem.conv.wieght; did you mean 'stem.conv.weight'?");
  std::vector<NamedTensor> many = {
      {"stem.conv.weight", weight}, {"stem.conv.bias", bias}, {"head.fc.weight", head}};
  for (int i = 0; i < 7; ++i) many.emplace_back(absl::StrCat("unknown_", i), bias);
  EXPECT_THAT(ErrorOf(many), HasSubstr("not in the model: 2 more"));
  EXPECT_EQ(ErrorOf(many, {.strict = false}), "");
  EXPECT_THAT(ErrorOf({{"x", bias}}, {.strict = false}), HasSubstr("0 of 3 tensors match"));
  EXPECT_THAT(ErrorOf({{"stem.conv.bias", weight}}, {.strict = false}),
              HasSubstr("stem.conv.bias is F32[4, 5] in the file, expected F32[4]"));
  Built built(1);
  EXPECT_EQ(LoadWeights(fs_, "/none", built.store).status().code(), absl::StatusCode::kNotFound);
}

class Normed : public Module {
 public:
  Normed() { AddChild<layers::BatchNorm>("norm", 2, layers::BatchNorm::Options{}); }
};

TEST_F(Weights, BuffersAreSavedAndLoadedLikeParameters) {
  Normed source_module, target_module;
  ParameterStore source(source_module, 1, false), target(target_module, 1, false);
  for (int64_t i = 0; i < source.values().numel(); ++i) {
    source.values().data<float>()[i] = static_cast<float>(i);
  }
  *source.counters().data<int64_t>() = int64_t{1} << 40;
  ASSERT_TRUE(ExportSafetensors(fs_, "/w", source).ok());
  const auto report = LoadWeights(fs_, "/w", target);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->ToString(), "5 tensors loaded");
  const auto state = StateOf(source, source.values()), loaded = StateOf(target, target.values());
  for (size_t k = 0; k < state.size(); ++k) {
    EXPECT_EQ(std::memcmp(state[k].second.raw(), loaded[k].second.raw(), state[k].second.bytes()),
              0)
        << state[k].first;
  }
}

TEST_F(Weights, ACounterMayBeMissingButNotARunningStatistic) {
  Normed module;
  ParameterStore store(module, 1, false);
  *store.counters().data<int64_t>() = 9;
  std::vector<NamedTensor> tensors = StateOf(store, store.values());
  ASSERT_EQ(tensors.back().first, "norm.num_batches_tracked");
  tensors.pop_back();
  ASSERT_TRUE(WriteSafetensors(fs_, "/w", tensors).ok());
  EXPECT_TRUE(LoadWeights(fs_, "/w", store).ok());
  EXPECT_EQ(*store.counters().data<int64_t>(), 9);
  tensors.emplace_back("norm.num_batches_tracked", Tensor::Zeros({}, DType::kF32));
  ASSERT_TRUE(WriteSafetensors(fs_, "/w", tensors).ok());
  EXPECT_THAT(LoadWeights(fs_, "/w", store).status().message(),
              HasSubstr("norm.num_batches_tracked is F32[] in the file, expected I64[]"));
  tensors.resize(3);
  ASSERT_TRUE(WriteSafetensors(fs_, "/w", tensors).ok());
  EXPECT_THAT(LoadWeights(fs_, "/w", store).status().message(),
              HasSubstr("not in the file: norm.running_var"));
}

TEST_F(Weights, LooseLoadingReportsWhatItLeftOut) {
  const std::vector<NamedTensor> tensors = {
      {"stem.conv.bias", Tensor::Zeros({4}, DType::kBF16)},
      {"other", Tensor::Zeros({4}, DType::kF32)},
      {"bn.num_batches_tracked", Tensor::Zeros({}, DType::kI64)}};
  ASSERT_TRUE(WriteSafetensors(fs_, "/w", tensors).ok());
  Built built(1);
  const float weight = built.First("stem.conv.weight");
  const auto report = LoadWeights(fs_, "/w", built.store, {.strict = false});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->missing, ElementsAre("stem.conv.weight", "head.fc.weight"));
  EXPECT_THAT(report->unexpected, ElementsAre("other"));
  EXPECT_EQ(
      report->ToString(),
      "1 tensors loaded, 2 not in the file (stem.conv.weight, ...), 1 not in the model (other)");
  EXPECT_EQ(built.First("stem.conv.bias"), 0.0f);
  EXPECT_EQ(built.First("stem.conv.weight"), weight);
}

// The table [2, 3] takes the first rows of a larger one.
std::optional<Tensor> FirstRows(absl::string_view name, const Tensor& from, const Shape& to) {
  if (name != "head.fc.weight" || from.dim(0) < to[0]) return std::nullopt;
  return from.Slice(0, to[0]);
}

TEST_F(Weights, TakeNamesAndResizingOfTheFamily) {
  ModelVariant variant;
  variant.weight_names = {{"body", "stem.conv"}, {"table", "head.fc.weight"}, {"extra", ""}};
  variant.resize_weight = FirstRows;
  const std::vector<float> rows = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  std::vector<NamedTensor> tensors = {{"body.weight", Tensor::Zeros({4, 5}, DType::kF32)},
                                      {"body.bias", Tensor::Zeros({4}, DType::kF32)},
                                      {"table", Tensor::From<float>({3, 3}, rows)},
                                      {"extra.x", Tensor::Zeros({1}, DType::kF32)}};
  ASSERT_TRUE(WriteSafetensors(fs_, "/w", tensors).ok());
  Built built(1);
  const auto report = LoadWeights(fs_, "/w", built.store, {.variant = &variant});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->resized, ElementsAre("head.fc.weight from [3, 3] to [2, 3]"));
  EXPECT_EQ(report->ToString(),
            "3 tensors loaded, 1 resized (head.fc.weight from [3, 3] to [2, 3])");
  const Tensor& table = built.store.Find("head.fc.weight")->value();
  EXPECT_TRUE(std::equal(rows.begin(), rows.begin() + 6, table.data<float>()));

  tensors[2].second = Tensor::Zeros({1, 3}, DType::kF32);
  ASSERT_TRUE(WriteSafetensors(fs_, "/w", tensors).ok());
  EXPECT_THAT(LoadWeights(fs_, "/w", built.store, {.variant = &variant}).status().message(),
              HasSubstr("head.fc.weight is F32[1, 3] in the file, expected F32[2, 3]"));
  tensors.emplace_back("stem.conv.bias", Tensor::Zeros({4}, DType::kF32));
  ASSERT_TRUE(WriteSafetensors(fs_, "/w", tensors).ok());
  EXPECT_EQ(LoadWeights(fs_, "/w", built.store, {.variant = &variant}).status().message(),
            "/w: two tensors stand for stem.conv.bias");
}

TEST_F(Weights, FineTuningKeepsAClassifierOfAnotherShape) {
  const Built source(1, 1000);
  Built target(2, 7);
  ASSERT_TRUE(ExportSafetensors(fs_, "/w", source.store).ok());
  EXPECT_FALSE(LoadWeights(fs_, "/w", target.store).ok());
  const float head = target.First("head.fc.weight");
  const auto report = LoadWeights(fs_, "/w", target.store, {.finetune = true});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->fresh, ElementsAre("head.fc.weight"));
  EXPECT_EQ(target.First("head.fc.weight"), head);
  EXPECT_EQ(target.First("stem.conv.weight"), source.First("stem.conv.weight"));
  Built same(3, 1000);
  EXPECT_THAT(LoadWeights(fs_, "/w", same.store, {.finetune = true})->fresh, ElementsAre());
  EXPECT_EQ(same.Values(), source.Values());
}

}  // namespace
}  // namespace tessera::train
