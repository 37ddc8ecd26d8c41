// Ranks that share a batch against one that has all of it.
#include "train/step.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/train_testing.h"
#include "train/evaluate.h"

namespace tessera::train {
namespace {

constexpr int64_t kBatch = 12;

// A MaxViT of one stage: batch norms, with and without squeeze-excite.
InTraining SmallMaxViT() {
  return MakeInTraining(
      "maxvit",
      absl::StrCat("{depths: [2], embed_dim: [8], stem_width: [8, 8], "
                   "transformer_cfg: {dim_head: 4, window_size: [4, 4], grid_size: [4, 4]}, "
                   "head_hidden_size: 0, drop_path_rate: 0.5, num_classes: ",
                   kTestClasses, "}"));
}

const Communicator& Ranks() { return Communicator::World(); }

// Rows r, r + R, ... of a tensor, on rank r of R.
Tensor Share(const Tensor& whole) {
  const int64_t rows = whole.dim(0) / Ranks().size(), row_size = whole.numel() / whole.dim(0);
  Tensor share = whole.Slice(0, rows).Clone();
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t row = i * Ranks().size() + Ranks().rank();
    std::copy_n(whole.data<float>() + row * row_size, row_size, share.data<float>() + i * row_size);
  }
  return share;
}

class RanksStep : public testing::TestWithParam<InTraining (*)()> {
 protected:
  Tensor images_ = RandomImages(kBatch, 32, 32), targets_ = OneHotTargets(kBatch);
};

TEST_P(RanksStep, HasTheLossGradientAndStatisticsOfTheWholeBatch) {
  for (const StepOptions& options : {StepOptions{}, StepOptions{.checkpoint_blocks = true},
                                     StepOptions{.accumulate = kBatch / 6}}) {
    InTraining alone = GetParam()(), shared = GetParam()();
    const double loss =
        ComputeGradients(*alone.model, *alone.store, options, images_, targets_, /*step=*/5);
    StepOptions with_ranks = options;
    with_ranks.ranks = &Ranks();
    EXPECT_NEAR(ComputeGradients(*shared.model, *shared.store, with_ranks, Share(images_),
                                 Share(targets_), /*step=*/5),
                loss, 1e-5);
    const std::vector<float> expected = Copy(alone.store->grads());
    const std::vector<float> found = Copy(shared.store->grads());
    const double norm = alone.optimizer->GradNorm();
    ASSERT_GT(norm, 0.1);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(found[i], expected[i], 2e-5 * norm) << i;
    }
    // Running statistics are behind the parameters.
    const std::vector<float> values = Copy(alone.store->values());
    const std::vector<float> of_ranks = Copy(shared.store->values());
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(of_ranks[i], values[i], 1e-5 * (1 + std::abs(values[i]))) << i;
    }
  }
}

TEST_P(RanksStep, GivesAllRanksTheSameBits) {
  InTraining run = GetParam()();
  for (int64_t step = 0; step < 3; ++step) {
    EXPECT_TRUE(TrainStep(*run.model, *run.store, *run.optimizer, {.ranks = &Ranks()},
                          Share(images_), Share(targets_), step, 1e-3)
                    .updated);
  }
  const Tensor& values = run.store->values();
  const std::vector<std::string> all = Ranks().AllGather(
      {reinterpret_cast<const char*>(values.data<float>()), values.numel() * sizeof(float)});
  for (const std::string& of_rank : all) EXPECT_TRUE(of_rank == all[0]);
}

TEST_P(RanksStep, IsSkippedByAllWhenOneHasANan) {
  InTraining run = GetParam()();
  const auto before = CopyState(run);
  const Tensor images = Share(images_);
  if (Ranks().rank() == 1) images.data<float>()[7] = std::nanf("");
  EXPECT_FALSE(TrainStep(*run.model, *run.store, *run.optimizer, {.ranks = &Ranks()}, images,
                         Share(targets_), 0, 1e-3)
                   .updated);
  EXPECT_EQ(CopyState(run), before);
}

INSTANTIATE_TEST_SUITE_P(Families, RanksStep,
                         testing::Values([] { return SmallDaViT(0.5); }, SmallBiFormer,
                                         SmallMaxViT));

TEST(RanksEvaluation, IsThatOfAllSamplesInTheirOrder) {
  constexpr int64_t kSamples = 11, kClasses = 3;
  const auto evaluation_of = [](int64_t first, int64_t stride) {
    Evaluation e;
    e.classes.resize(kClasses);
    for (int64_t i = first; i < kSamples; i += stride) {
      const auto label = static_cast<int32_t>(i % kClasses),
                 predicted = static_cast<int32_t>(i % 2);
      e.predictions.push_back({label, predicted, 0.05f * static_cast<float>(i)});
      e.loss += static_cast<double>(i);
      ++e.samples;
      e.skipped += i % 4 == 0;
      ++e.classes[label].samples;
      e.classes[label].top1 += label == predicted;
      ++e.classes[predicted].predicted;
    }
    e.loss /= static_cast<double>(e.samples);
    return e;
  };
  const Evaluation expected = evaluation_of(0, 1);
  const Evaluation merged = MergeRanks(Ranks(), evaluation_of(Ranks().rank(), Ranks().size()));
  EXPECT_EQ(merged.samples, expected.samples);
  EXPECT_EQ(merged.skipped, expected.skipped);
  EXPECT_DOUBLE_EQ(merged.loss, expected.loss);
  EXPECT_EQ(merged.top1(), expected.top1());
  EXPECT_EQ(merged.calibration_error(), expected.calibration_error());
  ASSERT_EQ(merged.predictions.size(), expected.predictions.size());
  for (size_t i = 0; i < expected.predictions.size(); ++i) {
    EXPECT_EQ(merged.predictions[i].confidence, expected.predictions[i].confidence) << i;
  }
  EXPECT_EQ(ClassCsv(merged, {}), ClassCsv(expected, {}));
}

}  // namespace
}  // namespace tessera::train
