#include "train/step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/check.h"
#include "core/random.h"
#include "models/registry.h"
#include "tests/data/data_testing.h"

namespace tessera::train {
namespace {

constexpr int64_t kBatch = 6, kClasses = 4;

std::vector<float> Copy(const Tensor& t) { return {t.data<float>(), t.data<float>() + t.numel()}; }

// A small DaViT with random images and targets, ready for a step.
class Steps : public ::testing::Test {
 protected:
  struct Setup {
    std::unique_ptr<ImageModel> model;
    std::unique_ptr<ParameterStore> store;
    std::unique_ptr<Optimizer> optimizer;
  };

  static Setup Make(double drop_path = 0.0, bool bf16 = false) {
    const ConfigNode options = Unwrap(ParseYaml(
        absl::StrCat("{depths: [1, 1], embed_dims: [8, 16], num_heads: [1, 2], window_size: 3, "
                     "num_classes: 4, drop_path_rate: ",
                     drop_path, "}"),
        "test"));
    Setup setup;
    setup.model = Unwrap(Unwrap(FindModel("davit"))->create(options));
    setup.store = std::make_unique<ParameterStore>(*setup.model, 3, bf16);
    setup.optimizer = std::make_unique<Optimizer>(OptimConfig(), *setup.store, 0.9);
    return setup;
  }

  void SetUp() override {
    RandomStream random(1, Purpose::kTest);
    images_ = Tensor::Empty({kBatch, 13, 10, 3}, DType::kF32);
    for (int64_t i = 0; i < images_.numel(); ++i) {
      images_.data<float>()[i] = static_cast<float>(random.Normal());
    }
    targets_ = Tensor::Zeros({kBatch, kClasses}, DType::kF32);
    for (int64_t i = 0; i < kBatch; ++i) targets_.data<float>()[i * kClasses + i % kClasses] = 1;
  }

  absl::StatusOr<StepResult> Step(Setup& setup, const StepOptions& options, double lr = 1e-3) {
    return TrainStep(*setup.model, *setup.store, *setup.optimizer, options, images_, targets_,
                     /*step=*/5, lr);
  }

  Tensor images_, targets_;
};

TEST_F(Steps, InPartsHaveTheLossAndTheGradientOfTheWholeBatch) {
  for (const double drop_path : {0.0, 0.5}) {
    Setup whole = Make(drop_path);
    const StepResult expected = Unwrap(Step(whole, {}));
    for (const int64_t parts : {2, 3, 6}) {
      SCOPED_TRACE(parts);
      Setup cut = Make(drop_path);
      const StepResult result = Unwrap(Step(cut, {.accumulate = parts}));
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
    Setup kept = Make(0.5, bf16), again = Make(0.5, bf16);
    StepOptions options = {.compute_dtype = bf16 ? DType::kBF16 : DType::kF32};
    const StepResult a = Unwrap(Step(kept, options));
    options.checkpoint_blocks = true;
    const StepResult b = Unwrap(Step(again, options));
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(Copy(kept.store->grads()), Copy(again.store->grads()));
    EXPECT_EQ(Copy(kept.store->values()), Copy(again.store->values()));
  }
}

TEST_F(Steps, ClipTheGlobalNormOfTheGradient) {
  // Without momentum a step of SGD is the gradient itself.
  const auto moved = [this](double clip) {
    Setup setup = Make();
    OptimConfig sgd;
    sgd.name = "sgd";
    sgd.momentum = 0;
    sgd.nesterov = false;
    sgd.weight_decay = 0;
    Optimizer optimizer(sgd, *setup.store, 0.0);
    const std::vector<float> before = Copy(setup.store->values());
    const StepResult result = Unwrap(TrainStep(*setup.model, *setup.store, optimizer,
                                               {.clip_grad = clip}, images_, targets_, 0, 1.0));
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

TEST_F(Steps, WithoutAFiniteLossUpdateNothing) {
  for (const int64_t parts : {1, 3}) {
    Setup setup = Make();
    images_.data<float>()[images_.numel() - 1] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> before = Copy(setup.store->values());
    const auto result = Step(setup, {.accumulate = parts});
    EXPECT_EQ(ExitCode(result.status()), 5);
    EXPECT_THAT(std::string(result.status().message()), testing::HasSubstr("step 5"));
    EXPECT_EQ(Copy(setup.store->values()), before);
    EXPECT_EQ(Copy(setup.optimizer->averages()), before);
    EXPECT_EQ(setup.optimizer->num_steps(), 0);
  }
}

TEST_F(Steps, AfterOneThatFailedAreAsIfItHadNotBeen) {
  Setup failed = Make(), clean = Make();
  const Tensor good = images_.Clone();
  images_.data<float>()[0] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(Step(failed, {}).ok());
  images_ = good;
  EXPECT_EQ(Unwrap(Step(failed, {})).loss, Unwrap(Step(clean, {})).loss);
  EXPECT_EQ(Copy(failed.store->values()), Copy(clean.store->values()));
}

}  // namespace
}  // namespace tessera::train
