#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace tessera::train {
namespace {

constexpr Schedule kSchedule = {.lr = 1.0,
                                .min_lr = 0.1,
                                .warmup_lr = 0.2,
                                .warmup_steps = 4,
                                .cooldown_steps = 3,
                                .total_steps = 17};

TEST(Schedule, WarmsUpInEqualStepsToThePeak) {
  EXPECT_DOUBLE_EQ(kSchedule.LearningRate(0), 0.4);
  EXPECT_DOUBLE_EQ(kSchedule.LearningRate(1), 0.6);
  EXPECT_DOUBLE_EQ(kSchedule.LearningRate(2), 0.8);
  EXPECT_DOUBLE_EQ(kSchedule.LearningRate(3), 1.0);
}

TEST(Schedule, FollowsACosineFromThePeakToTheTail) {
  EXPECT_DOUBLE_EQ(kSchedule.LearningRate(4), 1.0);
  EXPECT_DOUBLE_EQ(kSchedule.LearningRate(9), 0.1 + 0.9 / 2);  // half of the 10 steps
  for (int64_t t = 4; t < 14; ++t) {
    const double angle = std::numbers::pi * static_cast<double>(t - 4) / 10;
    EXPECT_NEAR(kSchedule.LearningRate(t), 0.1 + 0.45 * (1 + std::cos(angle)), 1e-15);
  }
}

TEST(Schedule, EndsAtTheMinimum) {
  for (const int64_t t : {14, 15, 16, 17, 1000}) EXPECT_EQ(kSchedule.LearningRate(t), 0.1);
}

TEST(Schedule, WithoutWarmUpStartsAtThePeak) {
  Schedule schedule = kSchedule;
  schedule.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(schedule.LearningRate(0), 1.0);
  EXPECT_LT(schedule.LearningRate(1), 1.0);
}

TEST(Schedule, WarmUpLongerThanTheRunKeepsRising) {
  Schedule schedule = kSchedule;
  schedule.warmup_steps = 40;
  for (int64_t t = 0; t < 17; ++t) {
    EXPECT_NEAR(schedule.LearningRate(t), 0.2 + 0.8 * static_cast<double>(t + 1) / 40, 1e-15);
  }
}

TEST(Schedule, WarmUpThatMeetsTheTailLeavesNoCosine) {
  Schedule schedule = kSchedule;
  schedule.warmup_steps = 14;
  EXPECT_DOUBLE_EQ(schedule.LearningRate(13), 1.0);
  EXPECT_EQ(schedule.LearningRate(14), 0.1);
}

TEST(Schedule, TailLongerThanTheRunStaysAtTheMinimum) {
  Schedule schedule = kSchedule;
  schedule.warmup_steps = 0;
  schedule.cooldown_steps = 100;
  for (int64_t t = 0; t < 17; ++t) EXPECT_EQ(schedule.LearningRate(t), 0.1);
}

TEST(Schedule, IsAFunctionOfTheStepAlone) {
  const double late = kSchedule.LearningRate(12), early = kSchedule.LearningRate(2);
  EXPECT_EQ(kSchedule.LearningRate(12), late);
  EXPECT_EQ(kSchedule.LearningRate(2), early);
}

}  // namespace
}  // namespace tessera::train
