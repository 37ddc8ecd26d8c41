#include "train/find_nonfinite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/train/train_testing.h"

namespace tessera::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int64_t kBatch = 4;

class NonFinite : public ::testing::Test {
 protected:
  std::string Find(const StepOptions& options = {}) {
    return FindNonFinite(*run_.model, *run_.store, options, images_, targets_, /*step=*/0);
  }
  void Fill(const std::string& parameter, float value) {
    const Tensor& values = run_.store->Find(parameter)->value();
    std::fill_n(values.data<float>(), values.numel(), value);
    run_.store->RefreshCopies();
  }

  InTraining run_ = SmallDaViT(0.0, /*bf16=*/true);
  Tensor images_ = RandomImages(kBatch, 12, 12), targets_ = OneHotTargets(kBatch);
};

TEST_F(NonFinite, NumbersAreNowhereInAGoodStep) {
  EXPECT_EQ(Find(), "");
  EXPECT_EQ(Find({.checkpoint_blocks = true, .accumulate = 2}), "");
}

TEST_F(NonFinite, NumbersAreFoundInWhatAStepBeginsWith) {
  images_.data<float>()[7] = std::nanf("");
  EXPECT_EQ(Find(), "the images");
  images_.data<float>()[7] = 0;
  targets_.data<float>()[1] = INFINITY;
  EXPECT_EQ(Find(), "the targets");
  targets_.data<float>()[1] = 0;
  Fill("head.fc.bias", INFINITY);
  EXPECT_EQ(Find(), "head.fc.bias");
}

TEST_F(NonFinite, NumbersAreFoundInTheOperationThatMadeThem) {
  Fill("stages.1.blocks.0.0.mlp.fc1.weight", 1e25f);
  Fill("stages.1.blocks.0.0.mlp.fc2.weight", 1e25f);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const bool again : {false, true}) {
      for (const int64_t parts : {1, 2}) {
        EXPECT_THAT(
            Find({.compute_dtype = dtype, .checkpoint_blocks = again, .accumulate = parts}),
            AllOf(StartsWith("operation "), HasSubstr(", 'mlp' of stages.1.blocks.0.0.mlp."),
                  HasSubstr("in the forward pass")));
      }
    }
  }
}

TEST_F(NonFinite, NumbersAreFoundInTheBackwardPass) {
  // The norm makes the logits small again, but the gradient meets the large weights first.
  Fill("head.fc.weight", 1e37f);
  Fill("head.norm.weight", 1e-30f);
  EXPECT_EQ(Find(), "");
  targets_.data<float>()[0] = 1e4f;
  EXPECT_THAT(Find(), AllOf(StartsWith("operation "), HasSubstr("'linear' of head.fc.weight"),
                            HasSubstr("in the backward pass")));
}

}  // namespace
}  // namespace tessera::train
