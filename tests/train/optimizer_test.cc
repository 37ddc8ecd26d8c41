#include "train/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/check.h"
#include "layers/linear.h"
#include "layers/norm.h"

namespace tessera::train {
namespace {

class Net : public Module {
 public:
  Net() {
    AddChild<layers::Linear>("fc", 5, 3);
    AddChild<layers::LayerNorm>("norm", 7);
    AddParameter("table", {2, 9}, Init::Uniform(1.0));
    AddBuffer("running", {3}, DType::kF32, 4);
  }
};

class Optimizers : public ::testing::Test {
 protected:
  static std::vector<float> Copy(const Tensor& t) {
    return {t.data<float>(), t.data<float>() + t.numel()};
  }
  void SetGrads(float value) {
    for (const auto& entry : store_.entries()) {
      std::fill_n(entry.parameter->grad().data<float>(), entry.parameter->grad().numel(), value);
    }
  }

  Net net_;
  ParameterStore store_{net_, 1, false};
};

TEST_F(Optimizers, DecayParametersOfTwoOrMoreDimensionsAlone) {
  for (const char* name : {"adamw", "sgd"}) {
    OptimConfig config;
    config.name = name;
    config.weight_decay = 0.5;
    Optimizer optimizer(config, store_, 0.0);
    SetGrads(0);
    const std::vector<float> before = Copy(store_.values());
    optimizer.Step(0.1, 1.0);
    for (const auto& entry : store_.entries()) {
      const Tensor& value = entry.parameter->value();
      const bool decays = value.rank() >= 2;
      for (int64_t i = 0; i < value.numel(); ++i) {
        const float was = before[entry.offset + i];
        if (decays) {
          // SGD as PyTorch has it: decay is a gradient, which Nesterov's form looks ahead with.
          const double factor = config.name == "sgd" ? 1 - 0.1 * 0.5 * 1.9 : 1 - 0.1 * 0.5;
          EXPECT_NEAR(value.data<float>()[i], was * factor, 1e-6) << name << " " << entry.name;
        } else {
          EXPECT_EQ(value.data<float>()[i], was) << name << " " << entry.name;
        }
      }
    }
  }
}

TEST_F(Optimizers, LeaveParametersWithoutDecayByPartsOfTheirNames) {
  OptimConfig config;
  config.weight_decay = 0.5;
  config.no_weight_decay = {"abl"};
  EXPECT_TRUE(CheckNoWeightDecay(config, net_).ok());
  Optimizer optimizer(config, store_, 0.0);
  SetGrads(0);
  const std::vector<float> before = Copy(store_.values());
  optimizer.Step(0.1, 1.0);
  for (const auto& entry : store_.entries()) {
    const float factor = entry.name == "fc.weight" ? 1 - 0.1f * 0.5f : 1;
    EXPECT_NEAR(*entry.parameter->value().data<float>(), before[entry.offset] * factor, 1e-6)
        << entry.name;
  }
  config.no_weight_decay.push_back("tabel");
  const absl::Status status = CheckNoWeightDecay(config, net_);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("'tabel'"));
}

TEST_F(Optimizers, FirstStepOfAdamWIsTheLearningRateWithoutDecay) {
  OptimConfig config;
  config.weight_decay = 0;
  Optimizer optimizer(config, store_, 0.0);
  SetGrads(-3);
  const std::vector<float> before = Copy(store_.values());
  optimizer.Step(0.01, 1.0);
  EXPECT_EQ(optimizer.num_steps(), 1);
  for (const auto& entry : store_.entries()) {
    EXPECT_NEAR(*entry.parameter->value().data<float>(), before[entry.offset] + 0.01, 1e-6);
  }
}

TEST_F(Optimizers, GapsBetweenParametersStayZero) {
  Optimizer optimizer(OptimConfig(), store_, 0.9);
  SetGrads(1);
  optimizer.Step(0.1, 1.0);
  std::vector<bool> used(store_.values().numel());
  for (const auto& entry : store_.entries()) {
    std::fill_n(used.begin() + entry.offset, entry.parameter->shape().numel(), true);
  }
  std::fill_n(used.begin() + store_.buffers()[0].offset, 3, true);
  for (size_t i = 0; i < used.size(); ++i) {
    if (!used[i]) {
      ASSERT_EQ(store_.values().data<float>()[i], 0);
      ASSERT_EQ(optimizer.averages().data<float>()[i], 0);
    }
  }
}

TEST_F(Optimizers, AverageBuffersAndLeaveThemAlone) {
  Optimizer optimizer(OptimConfig(), store_, 0.75);
  const Tensor& running = store_.buffers().at(0).buffer->value();
  std::fill_n(running.data<float>(), 3, 8.0f);
  SetGrads(1);
  optimizer.Step(0.1, 1.0);
  const float* average = optimizer.averages().data<float>() + store_.buffers()[0].offset;
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(running.data<float>()[i], 8.0f);
    EXPECT_EQ(average[i], 0.75f * 4 + 0.25f * 8);
  }
}

TEST_F(Optimizers, AveragesStartAsACopyAndFollow) {
  Optimizer optimizer(OptimConfig(), store_, 0.75);
  const std::vector<float> before = Copy(store_.values());
  EXPECT_EQ(Copy(optimizer.averages()), before);
  EXPECT_NE(optimizer.averages().raw(), store_.values().raw());
  SetGrads(1);
  optimizer.Step(0.1, 1.0);
  const std::vector<float> after = Copy(store_.values()), averages = Copy(optimizer.averages());
  for (size_t i = 0; i < after.size(); ++i) {
    EXPECT_NEAR(averages[i], 0.75 * before[i] + 0.25 * after[i], 1e-6);
  }
  optimizer.ResetAverages();
  EXPECT_EQ(Copy(optimizer.averages()), after);
}

TEST_F(Optimizers, HaveTheMomentsThatTheyNeed) {
  const auto names = [this](const OptimConfig& config) {
    std::vector<std::string> result;
    const Optimizer optimizer(config, store_, 0.0);
    for (const auto& moment : optimizer.moments()) {
      result.push_back(moment.name);
    }
    return result;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(names(OptimConfig()), (Names{"exp_avg", "exp_avg_sq"}));
  OptimConfig sgd;
  sgd.name = "sgd";
  EXPECT_EQ(names(sgd), Names{"momentum_buffer"});
  sgd.momentum = 0;
  sgd.nesterov = false;
  EXPECT_EQ(names(sgd), Names{});
  EXPECT_FALSE(Optimizer(sgd, store_, 0.0).averages().defined());
}

TEST_F(Optimizers, GradNormIsOfAllGradients) {
  const Optimizer optimizer(OptimConfig(), store_, 0.0);
  SetGrads(-2);
  EXPECT_NEAR(optimizer.GradNorm(), 2 * std::sqrt(static_cast<double>(store_.num_parameters())),
              1e-6);
}

TEST_F(Optimizers, ContinueFromAStepCountAndMoments) {
  SetGrads(1);
  Net other_net;
  ParameterStore other(other_net, 1, false);
  Optimizer whole(OptimConfig(), store_, 0.0), resumed(OptimConfig(), other, 0.0);
  whole.Step(0.1, 1.0);
  const auto copy = [](const Tensor& from, const Tensor& to) {
    std::memcpy(to.raw(), from.raw(), from.bytes());
  };
  copy(store_.values(), other.values());
  copy(store_.grads(), other.grads());
  for (size_t i = 0; i < whole.moments().size(); ++i) {
    copy(whole.moments()[i].values, resumed.moments()[i].values);
  }
  resumed.set_num_steps(whole.num_steps());
  whole.Step(0.05, 0.5);
  resumed.Step(0.05, 0.5);
  EXPECT_EQ(Copy(store_.values()), Copy(other.values()));
}

}  // namespace
}  // namespace tessera::train
