#include <cmath>

#include "layers/norm.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

struct Built {
  explicit Built(const layers::BatchNorm::Options& options = {.momentum = 0.25})
      : norm(3, options), store(norm, 1, false) {}
  Tensor Forward(const Tensor& x, bool training) const {
    return norm.Forward(x, Activation::kNone, {.training = training}, DType::kF32);
  }
  // running_mean, running_var and the counter.
  std::vector<double> State() const {
    std::vector<double> state(store.values().data<float>() + store.grads().numel(),
                              store.values().data<float>() + store.values().numel());
    state.push_back(static_cast<double>(*store.counters().data<int64_t>()));
    return state;
  }

  layers::BatchNorm norm;
  ParameterStore store;
};

TEST(BatchNormLayer, HasTheNamesAndBuffersOfCheckpoints) {
  const Built built;
  std::vector<std::string> names;
  for (const auto& entry : built.store.entries()) names.push_back(entry.name);
  for (const auto& entry : built.store.buffers()) names.push_back(entry.name);
  EXPECT_EQ(names, (std::vector<std::string>{"weight", "bias", "running_mean", "running_var",
                                             "num_batches_tracked"}));
  EXPECT_EQ(built.store.num_parameters(), 6);
}

TEST(BatchNormLayer, TrainsWithTheBatchAndMovesTheRunningStatistics) {
  const Built built;
  const Tensor x = Tensor::From<float>({2, 3}, std::vector<float>{1, 2, 3, 3, 2, 1});
  const Tensor y = built.Forward(x, true);
  EXPECT_NEAR(At(y, 0), -1 / std::sqrt(1 + 1e-5), 1e-6);
  EXPECT_NEAR(At(y, 1), 0, 1e-6);
  const std::vector<double> state = built.State();
  EXPECT_NEAR(state[0], 0.25 * 2, 1e-6);              // mean 2
  EXPECT_NEAR(state[16], 0.75 * 1 + 0.25 * 2, 1e-6);  // unbiased variance 2
  EXPECT_NEAR(state[17], 0.75 * 1 + 0.25 * 0, 1e-6);
  EXPECT_EQ(state.back(), 1);
  built.Forward(x, true);
  EXPECT_EQ(built.State().back(), 2);
}

TEST(BatchNormLayer, EvaluatesWithTheRunningStatistics) {
  const Built built;
  const Tensor x = RandomTensor({5, 3}, DType::kF32, 1);
  const std::vector<double> before = built.State();
  const Tensor y = built.Forward(x, false);
  for (int64_t i = 0; i < 15; ++i) EXPECT_NEAR(At(y, i), At(x, i) / std::sqrt(1 + 1e-5), 1e-6);
  EXPECT_EQ(built.State(), before);
}

TEST(BatchNormLayer, FrozenDoesTheSameInTraining) {
  const Built built({.frozen = true});
  const Tensor x = RandomTensor({5, 3}, DType::kF32, 1);
  const std::vector<double> before = built.State();
  const Tensor trained = built.Forward(x, true), evaluated = built.Forward(x, false);
  EXPECT_EQ(ToDouble(trained), ToDouble(evaluated));
  EXPECT_EQ(built.State(), before);
}

TEST(BatchNormLayer, ACheckpointedBlockMovesTheRunningStatisticsOnce) {
  Built plain, checkpointed, nested;
  const auto step = [](Built& built, int depth) {
    Tape tape;
    built.store.Watch(tape, false);
    Tensor x = RandomTensor({4, 3}, DType::kF32, 1);
    const Tensor x_grad = Tensor::Empty(x.shape(), DType::kF32);
    tape.Watch(x, x_grad, false);
    const auto forward = [&built](const Tensor& in) { return built.Forward(in, true); };
    const auto once = [&](const Tensor& in) { return Checkpoint(in, forward); };
    Tensor y = depth == 0 ? forward(x) : depth == 1 ? once(x) : Checkpoint(x, once);
    Tensor loss = Tensor::Zeros({}, DType::kF32);
    Record("first", {&y}, {&loss}, [](GradContext& g) {
      const Tensor dy = Tensor::Zeros({4, 3}, DType::kF32);
      dy.data<float>()[0] = 1;
      g.Add(0, dy);
    });
    tape.Backward(loss);
    return ToDouble(x_grad);
  };
  const std::vector<double> expected = step(plain, 0);
  EXPECT_EQ(step(checkpointed, 1), expected);
  EXPECT_EQ(step(nested, 2), expected);
  EXPECT_EQ(checkpointed.State(), plain.State());
  EXPECT_EQ(nested.State(), plain.State());
  EXPECT_FALSE(Tape::Recomputing());
}

}  // namespace
}  // namespace tessera
