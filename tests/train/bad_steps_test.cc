#include "train/bad_steps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/core/faulty_file_system.h"
#include "tests/train/train_testing.h"
#include "train/snapshot.h"

namespace tessera::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kStepsPerEpoch = 125;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

class BadSteps : public ::testing::Test {
 protected:
  BadSteps() {
    FLAGS_minloglevel = google::GLOG_ERROR;
    batch_.images = RandomImages(2, 9, 9);
    batch_.targets = OneHotTargets(2);
  }

  // Accounts for the next step.
  absl::Status Follow(const StepResult& result) {
    ++state_.step;
    return FollowStep(
        {fs_, run_dir_, *run_.model, *run_.store, *run_.optimizer, options_, kStepsPerEpoch},
        result, batch_, &state_);
  }
  absl::Status Good(double loss = 1.0) { return Follow({loss, 1.0, true}); }
  // The first error of this many skipped steps.
  absl::Status Skip(int64_t count) {
    for (int64_t i = 0; i < count; ++i) RETURN_IF_ERROR(Follow({kNan, kNan, false}));
    return absl::OkStatus();
  }
  void Save() {
    ASSERT_TRUE(SaveSnapshot(fs_, CheckpointPath(run_dir_, state_.step), state_, "a: 1\n",
                             *run_.store, *run_.optimizer)
                    .ok());
  }
  void Step() {
    const StepResult result = TrainStep(*run_.model, *run_.store, *run_.optimizer, options_,
                                        batch_.images, batch_.targets, state_.step, 1e-2);
    ASSERT_TRUE(result.updated);
    ASSERT_TRUE(Follow(result).ok());
  }

  FaultyFileSystem fs_;
  std::string run_dir_ = "/run";
  InTraining run_ = SmallDaViT();
  StepOptions options_;
  Batch batch_;
  TrainState state_;
};

TEST_F(BadSteps, AreCountedUntilTheNextGoodOne) {
  ASSERT_TRUE(Good().ok());
  ASSERT_TRUE(Skip(kMaxSkippedInARow - 1).ok());
  EXPECT_EQ(state_.skipped_in_a_row, kMaxSkippedInARow - 1);
  ASSERT_TRUE(Good().ok());
  EXPECT_EQ(state_.skipped_in_a_row, 0);
  ASSERT_TRUE(Skip(kMaxSkippedInARow - 1).ok());
  EXPECT_EQ(state_.updates, 2);
  EXPECT_EQ(state_.step, 20);
}

TEST_F(BadSteps, AreSpikesAboveTheAverageOfTheLossWhenAskedFor) {
  EXPECT_EQ(MaxLoss(3, state_), INFINITY);
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(Good(2.0).ok());
  EXPECT_EQ(MaxLoss(0, state_), INFINITY);
  EXPECT_NEAR(MaxLoss(3, state_), 6.0, 1e-9);
  for (int i = 0; i < 400; ++i) ASSERT_TRUE(Good(1.0).ok());
  EXPECT_NEAR(MaxLoss(3, state_), 3.0, 0.01);
  // Those that are skipped do not count.
  ASSERT_TRUE(Follow({1e6, 1.0, false}).ok());
  EXPECT_NEAR(MaxLoss(3, state_), 3.0, 0.01);
}

TEST_F(BadSteps, TenInARowPutTheStateOfTheCheckpointBack) {
  Step();
  Save();
  const auto saved = CopyState(run_);
  const TrainState then = state_;
  for (int i = 0; i < 3; ++i) Step();
  EXPECT_NE(CopyState(run_), saved);
  ASSERT_TRUE(Skip(kMaxSkippedInARow).ok());
  EXPECT_EQ(CopyState(run_), saved);
  EXPECT_EQ(run_.optimizer->num_steps(), 1);
  EXPECT_EQ(state_.updates, then.updates);
  EXPECT_EQ(state_.mean_loss, then.mean_loss);
  EXPECT_EQ(state_.step, 14);  // the data goes on
  EXPECT_EQ(state_.rolled_back_at, 14);
  EXPECT_EQ(state_.skipped_in_a_row, 0);
}

TEST_F(BadSteps, DoNotGoBackToWhatWasSavedAmongThem) {
  Step();
  Save();
  const auto saved = CopyState(run_);
  Step();
  ASSERT_TRUE(Skip(2).ok());
  Save();
  ASSERT_TRUE(Skip(kMaxSkippedInARow - 2).ok());
  EXPECT_EQ(CopyState(run_), saved);
}

TEST_F(BadSteps, EndTheRunWhenGoingBackDidNotHelpAndNameTheOperation) {
  Step();
  Save();
  ASSERT_TRUE(Skip(kMaxSkippedInARow).ok());
  for (const char* name : {"fc1", "fc2"}) {
    const std::string path = absl::StrCat("stages.0.blocks.0.0.mlp.", name, ".weight");
    const Tensor& weight = run_.store->Find(path)->value();
    std::fill_n(weight.data<float>(), weight.numel(), 1e25f);
  }
  const absl::Status status = Skip(kMaxSkippedInARow);
  EXPECT_EQ(ExitCode(status), 5);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("step 21: 10 steps in a row"), HasSubstr("went back at step 11"),
                    HasSubstr("'mlp' of stages.0.blocks.0.0.mlp.")));
}

TEST_F(BadSteps, GoBackAgainAnEpochLater) {
  Step();
  Save();
  ASSERT_TRUE(Skip(kMaxSkippedInARow).ok());
  for (int64_t i = 0; i < kStepsPerEpoch - kMaxSkippedInARow; ++i) ASSERT_TRUE(Good().ok());
  ASSERT_TRUE(Skip(kMaxSkippedInARow).ok());
  EXPECT_EQ(state_.rolled_back_at, state_.step);
}

TEST_F(BadSteps, EndTheRunWithoutACheckpoint) {
  batch_.images.data<float>()[3] = std::nanf("");
  const absl::Status status = Skip(kMaxSkippedInARow);
  EXPECT_EQ(ExitCode(status), 5);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("no checkpoint"), HasSubstr("the images")));
}

TEST_F(BadSteps, ThatWereSpikesEndTheRunWithoutAnOperation) {
  absl::Status status;
  while (status.ok()) status = Follow({1e3, 1.0, false});
  EXPECT_EQ(ExitCode(status), 5);
  EXPECT_THAT(std::string(status.message()), HasSubstr("too large, but finite"));
}

}  // namespace
}  // namespace tessera::train
