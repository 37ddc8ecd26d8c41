#include "train/step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/train/train_testing.h"

namespace tessera::train {
namespace {

constexpr int64_t kBatch = 6;

// Steps of a small DaViT with random images and targets.
class Steps : public ::testing::Test {
 protected:
  StepResult Step(InTraining& run, const StepOptions& options,
                  double max_loss = std::numeric_limits<double>::infinity()) {
    return TrainStep(*run.model, *run.store, *run.optimizer, options, images_, targets_,
                     /*step=*/5, /*lr=*/1e-3, max_loss);
  }

  Tensor images_ = RandomImages(kBatch, 13, 10), targets_ = OneHotTargets(kBatch);
};

TEST_F(Steps, InPartsHaveTheLossAndTheGradientOfTheWholeBatch) {
  for (const double drop_path : {0.0, 0.5}) {
    InTraining whole = SmallDaViT(drop_path);
    const StepResult expected = Step(whole, {});
    for (const int64_t parts : {2, 3, 6}) {
      SCOPED_TRACE(parts);
      InTraining cut = SmallDaViT(drop_path);
      const StepResult result = Step(cut, {.accumulate = parts});
      EXPECT_NEAR(result.loss, expected.loss, 1e-5);
      EXPECT_NEAR(result.grad_norm, expected.grad_norm, 1e-4 * expected.grad_norm);
      const std::vector<float> a = Copy(whole.store->grads()), b = Copy(cut.store->grads());
      for (size_t i = 0; i < a.size(); ++i) {
        ASSERT_NEAR(a[i], b[i], 1e-5 * expected.grad_norm) << i;
      }
    }
  }
}

TEST_F(Steps, WithCheckpointedBlocksAreTheSameBits) {
  for (const bool bf16 : {false, true}) {
    InTraining kept = SmallDaViT(0.5, bf16), again = SmallDaViT(0.5, bf16);
    StepOptions options = {.compute_dtype = bf16 ? DType::kBF16 : DType::kF32};
    const StepResult a = Step(kept, options);
    options.checkpoint_blocks = true;
    const StepResult b = Step(again, options);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(Copy(kept.store->grads()), Copy(again.store->grads()));
    EXPECT_EQ(Copy(kept.store->values()), Copy(again.store->values()));
  }
}

TEST_F(Steps, ClipTheGlobalNormOfTheGradient) {
  // Without momentum a step of SGD is the gradient itself.
  const auto moved = [this](double clip) {
    InTraining setup = SmallDaViT();
    OptimConfig sgd;
    sgd.name = "sgd";
    sgd.momentum = 0;
    sgd.nesterov = false;
    sgd.weight_decay = 0;
    Optimizer optimizer(sgd, *setup.store, 0.0);
    const std::vector<float> before = Copy(setup.store->values());
    const StepResult result = TrainStep(*setup.model, *setup.store, optimizer, {.clip_grad = clip},
                                        images_, targets_, 0, 1.0);
    const std::vector<float> after = Copy(setup.store->values());
    double sum = 0;
    for (size_t i = 0; i < after.size(); ++i) sum += std::pow(after[i] - before[i], 2);
    return std::pair(result.grad_norm, std::sqrt(sum));
  };
  const auto [norm, free] = moved(0);
  EXPECT_NEAR(free, norm, 1e-4 * norm);
  const auto [clipped_norm, clipped] = moved(norm / 4);
  EXPECT_EQ(clipped_norm, norm);  // as it was before
  EXPECT_NEAR(clipped, norm / 4, 1e-4 * norm);
  EXPECT_NEAR(moved(2 * norm).second, norm, 1e-4 * norm);
}

TEST_F(Steps, WithoutAFiniteLossOrWithASpikeChangeNothing) {
  const Tensor good = images_;
  for (const int64_t parts : {1, 3}) {
    for (const bool spike : {false, true}) {
      InTraining setup = parts == 1 ? SmallBiFormer() : SmallDaViT();
      images_ = good.Clone();
      EXPECT_TRUE(Step(setup, {.accumulate = parts}).updated);
      const auto before = CopyState(setup);
      if (!spike) images_.data<float>()[images_.numel() - 1] = std::nanf("");
      const StepResult result = Step(setup, {.accumulate = parts}, spike ? 0.01 : 1e9);
      EXPECT_FALSE(result.updated);
      EXPECT_EQ(std::isfinite(result.loss), spike);
      EXPECT_EQ(CopyState(setup), before);
      EXPECT_EQ(setup.optimizer->num_steps(), 1);
      const absl::Status status = CheckUpdated(result, 5);
      EXPECT_EQ(ExitCode(status), 5);
      EXPECT_THAT(std::string(status.message()), testing::HasSubstr("step 5"));
    }
  }
}

TEST_F(Steps, AfterOneThatFailedAreAsIfItHadNotBeen) {
  InTraining failed = SmallDaViT(), clean = SmallDaViT();
  const Tensor good = images_.Clone();
  images_.data<float>()[0] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(Step(failed, {}).updated);
  images_ = good;
  EXPECT_EQ(Step(failed, {}).loss, Step(clean, {}).loss);
  EXPECT_EQ(Copy(failed.store->values()), Copy(clean.store->values()));
}

}  // namespace
}  // namespace tessera::train
