#include "train/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/check.h"
#include "tests/data/data_testing.h"

namespace tessera::train {
namespace {

// Logits are written down by sample: the image's first value says which.
class TableModel : public ImageModel {
 public:
  explicit TableModel(std::vector<std::vector<float>> logits) : logits_(std::move(logits)) {}
  Tensor Forward(const Tensor& images, const ForwardContext& context) const override {
    EXPECT_FALSE(context.training);
    Tensor out = Tensor::Zeros({images.dim(0), num_classes()}, DType::kF32);
    const int64_t stride = images.numel() / images.dim(0);
    for (int64_t i = 0; i < images.dim(0); ++i) {
      const auto sample = static_cast<size_t>(images.data<float>()[i * stride]);
      std::copy(logits_[sample].begin(), logits_[sample].end(),
                out.data<float>() + i * num_classes());
    }
    return out;
  }
  int64_t num_classes() const override { return static_cast<int64_t>(logits_[0].size()); }
  int64_t in_chans() const override { return 1; }
  std::vector<StageCost> Costs(int64_t, int64_t) const override { return {}; }
  ConfigNode Options() const override { return {}; }

 private:
  std::vector<std::vector<float>> logits_;
};

// Batches of `size` over samples with these labels; what fills up the last one is sample 0 without
// a label.
class TableLoader : public Loader {
 public:
  TableLoader(std::vector<int64_t> labels, int64_t size)
      : labels_(std::move(labels)), size_(size) {}
  absl::StatusOr<std::optional<Batch>> Next() override {
    const auto total = static_cast<int64_t>(labels_.size());
    if (next_ >= total) return std::optional<Batch>();
    Batch batch;
    batch.images = Tensor::Zeros({size_, 1, 1, 1}, DType::kF32);
    batch.labels = Tensor::Empty({size_}, DType::kI64);
    batch.num_valid = std::min(size_, total - next_);
    for (int64_t i = 0; i < size_; ++i) {
      const bool valid = i < batch.num_valid;
      batch.images.data<float>()[i] = valid ? static_cast<float>(next_ + i) : 0.0f;
      batch.labels.data<int64_t>()[i] = valid ? labels_[next_ + i] : -1;
    }
    next_ += size_;
    return std::optional<Batch>(std::move(batch));
  }
  int64_t batches_per_epoch() const override { return 0; }
  int64_t samples_per_epoch() const override { return 0; }
  const LoaderStats& stats() const override { return stats_; }

  LoaderStats stats_;

 private:
  std::vector<int64_t> labels_;
  int64_t size_;
  int64_t next_ = 0;
};

const std::vector<std::vector<float>> kLogits = {
    {9, 5, 4, 3, 2, 1, 0},   // 0 first
    {9, 5, 4, 3, 2, 1, 0},   // label 4 is fifth
    {9, 5, 4, 3, 2, 1, 0},   // label 5 is sixth
    {0, 1, 2, 3, 4, 5, 9},   // 6 first
    {-1, -1, 7, 0, 0, 0, 0}  // 2 first
};
const std::vector<int64_t> kLabels = {0, 4, 5, 6, 2};

double Loss(const std::vector<float>& logits, int64_t label) {
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  return std::log(sum) - logits[label];
}

TEST(Evaluate, CountsWhatIsCountedByHandForAnyBatchSize) {
  double loss = 0;
  for (size_t i = 0; i < kLabels.size(); ++i) loss += Loss(kLogits[i], kLabels[i]) / 5;
  for (const int64_t size : {1, 2, 3, 5, 8}) {
    SCOPED_TRACE(size);
    const TableModel model(kLogits);
    TableLoader loader(kLabels, size);
    std::vector<int64_t> told;
    const Evaluation e = Unwrap(Evaluate(model, DType::kF32, Device::kCpu, loader, nullptr,
                                         [&](int64_t done, double) { told.push_back(done); }));
    EXPECT_EQ(e.samples, 5);
    EXPECT_DOUBLE_EQ(e.top1(), 60);
    EXPECT_DOUBLE_EQ(e.top5(), 80);
    EXPECT_NEAR(e.loss, loss, 1e-5);
    EXPECT_EQ(told.back(), 5);
    ASSERT_EQ(e.classes.size(), 7u);
    EXPECT_EQ(e.classes[0].samples, 1);
    EXPECT_EQ(e.classes[0].predicted, 3);
    EXPECT_EQ(e.classes[4].top1, 0);
    EXPECT_EQ(e.classes[4].top5, 1);
    EXPECT_EQ(e.classes[5].top5, 0);
    EXPECT_EQ(e.classes[1].samples, 0);
  }
}

TEST(Evaluate, WithFewerThanFiveClassesHasAllOfThemInTheTop) {
  const TableModel model({{1, 0, 0}, {0, 0, 1}});
  TableLoader loader({1, 2}, 2);
  const Evaluation e = Unwrap(Evaluate(model, DType::kF32, Device::kCpu, loader, nullptr, nullptr));
  EXPECT_DOUBLE_EQ(e.top1(), 50);
  EXPECT_DOUBLE_EQ(e.top5(), 100);
}

TEST(Evaluate, HasAFiniteLossWhereAProbabilityUnderflows) {
  const TableModel model({{-1e4f, 1e4f}});
  TableLoader loader({0}, 1);
  const Evaluation e = Unwrap(Evaluate(model, DType::kF32, Device::kCpu, loader, nullptr, nullptr));
  EXPECT_GT(e.loss, 80);
  EXPECT_TRUE(std::isfinite(e.loss));
}

TEST(Evaluate, MeasuresCalibration) {
  // Confidence 0.75 everywhere: of four samples three are right, then two, then none.
  const float x = std::log(3.0f);
  const TableModel model({{x, 0}, {x, 0}, {x, 0}, {x, 0}});
  const auto error = [&](const std::vector<int64_t>& labels) {
    TableLoader loader(labels, 4);
    return Unwrap(Evaluate(model, DType::kF32, Device::kCpu, loader, nullptr, nullptr))
        .calibration_error();
  };
  EXPECT_NEAR(error({0, 0, 0, 1}), 0, 1e-5);
  EXPECT_NEAR(error({0, 0, 1, 1}), 25, 1e-5);
  EXPECT_NEAR(error({1, 1, 1, 1}), 75, 1e-5);
  // Bins do not cancel each other: one surely wrong, one at 0.5 right.
  const TableModel two({{100, 0}, {0, 0}});
  TableLoader loader({1, 0}, 2);
  const Evaluation e = Unwrap(Evaluate(two, DType::kF32, Device::kCpu, loader, nullptr, nullptr));
  EXPECT_NEAR(e.calibration_error(), 75, 1e-5);
  EXPECT_EQ(Evaluation().calibration_error(), 0);
  ASSERT_EQ(e.predictions.size(), 2u);
  EXPECT_EQ(e.predictions[0].label, 1);
  EXPECT_EQ(e.predictions[0].predicted, 0);
  EXPECT_EQ(e.predictions[0].confidence, 1.0f);
}

TEST(Evaluate, StopsBetweenBatchesWhenTold) {
  const TableModel model(kLogits);
  TableLoader loader(kLabels, 2);
  int asked = 0;
  const Evaluation e = Unwrap(Evaluate(
      model, DType::kF32, Device::kCpu, loader, [&] { return ++asked > 2; }, nullptr));
  EXPECT_EQ(e.samples, 4);
}

TEST(Evaluate, OfNothingIsZero) {
  const TableModel model(kLogits);
  TableLoader loader({}, 2);
  loader.stats_.bad[0] = 3;
  const Evaluation e = Unwrap(Evaluate(model, DType::kF32, Device::kCpu, loader, nullptr, nullptr));
  EXPECT_EQ(e.top1(), 0);
  EXPECT_EQ(e.loss, 0);
  EXPECT_EQ(e.skipped, 3);
}

TEST(ClassTable, HasARowForEveryClass) {
  const TableModel model(kLogits);
  TableLoader loader(kLabels, 2);
  const Evaluation e = Unwrap(Evaluate(model, DType::kF32, Device::kCpu, loader, nullptr, nullptr));
  const std::string table = ClassTable(e, {"aeroplane", "bird"});
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 8);
  EXPECT_THAT(table, testing::HasSubstr("aeroplane         1   100.00   100.00      33.33\n"));
  EXPECT_THAT(table, testing::HasSubstr("\n6 "));
}

TEST(ClassCsv, QuotesNames) {
  const TableModel model({{1, 0}, {1, 0}});
  TableLoader loader({0, 1}, 2);
  const Evaluation e = Unwrap(Evaluate(model, DType::kF32, Device::kCpu, loader, nullptr, nullptr));
  EXPECT_EQ(ClassCsv(e, {"crane, bird", "a \"b\""}),
            "class,samples,top1,top5,precision\r\n"
            "\"crane, bird\",1,100.0000,100.0000,50.0000\r\n"
            "\"a \"\"b\"\"\",1,0.0000,100.0000,0.0000\r\n");
}

}  // namespace
}  // namespace tessera::train
