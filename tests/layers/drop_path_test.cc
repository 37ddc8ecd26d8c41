#include "layers/drop_path.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "layers/linear.h"

namespace tessera::layers {
namespace {

// Two drop paths with names of their own.
class Net : public Module {
 public:
  explicit Net(double rate)
      : first(AddChild<DropPath>("first", rate)), second(AddChild<DropPath>("second", rate)) {
    AddChild<Linear>("fc", 2, 2);  // a store needs a parameter
  }
  DropPath& first;
  DropPath& second;
};

class DropPaths : public ::testing::Test {
 protected:
  // What each of n samples' branch of ones is multiplied with.
  static std::vector<float> Scales(const DropPath& drop_path, int64_t n,
                                   const ForwardContext& context) {
    const Tensor x = Tensor::Zeros({n, 3}, DType::kF32);
    Tensor branch = Tensor::Empty({n, 3}, DType::kF32);
    for (int64_t i = 0; i < branch.numel(); ++i) branch.data<float>()[i] = 1;
    const Tensor y = drop_path.AddTo(x, branch, context);
    std::vector<float> scales;
    for (int64_t i = 0; i < n; ++i) {
      scales.push_back(y.data<float>()[3 * i]);
      EXPECT_EQ(y.data<float>()[3 * i + 1], scales.back());
      EXPECT_EQ(y.data<float>()[3 * i + 2], scales.back());
    }
    return scales;
  }

  Net net_{0.25};
  ParameterStore store_{net_, 1, false};
  ForwardContext training_ = {.training = true, .seed = 9, .step = 4};
};

TEST_F(DropPaths, AddTheWholeBranchInEvaluation) {
  EXPECT_EQ(Scales(net_.first, 50, {}), std::vector<float>(50, 1.0f));
}

TEST_F(DropPaths, OfRateZeroAddTheWholeBranchInTraining) {
  Net net(0.0);
  const ParameterStore store(net, 1, false);
  EXPECT_EQ(Scales(net.first, 50, training_), std::vector<float>(50, 1.0f));
}

TEST_F(DropPaths, KeepTheirShareAndDivideByIt) {
  constexpr int64_t kSamples = 20000;
  int64_t kept = 0;
  for (const float scale : Scales(net_.first, kSamples, training_)) {
    ASSERT_TRUE(scale == 0 || scale == static_cast<float>(1 / 0.75));
    kept += scale != 0;
  }
  const double deviation = std::sqrt(kSamples * 0.25 * 0.75);
  EXPECT_NEAR(static_cast<double>(kept), 0.75 * kSamples, 4 * deviation);
}

TEST_F(DropPaths, DependOnSeedStepLayerAndSample) {
  const std::vector<float> scales = Scales(net_.first, 100, training_);
  EXPECT_EQ(Scales(net_.first, 100, training_), scales);
  ForwardContext other = training_;
  other.seed = 10;
  EXPECT_NE(Scales(net_.first, 100, other), scales);
  other = training_;
  other.step = 5;
  EXPECT_NE(Scales(net_.first, 100, other), scales);
  other = training_;
  other.first_sample = 1;
  EXPECT_NE(Scales(net_.first, 100, other), scales);
  EXPECT_NE(Scales(net_.second, 100, training_), scales);
}

TEST_F(DropPaths, DoNotDependOnHowTheBatchIsCut) {
  const std::vector<float> whole = Scales(net_.first, 24, training_);
  for (const int64_t part : {1, 5, 8}) {
    std::vector<float> parts;
    for (int64_t begin = 0; begin < 24; begin += part) {
      ForwardContext context = training_;
      context.first_sample = begin;
      for (const float s : Scales(net_.first, std::min(part, 24 - begin), context)) {
        parts.push_back(s);
      }
    }
    EXPECT_EQ(parts, whole);
  }
}

}  // namespace
}  // namespace tessera::layers
