#include "layers/module.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "layers/linear.h"

namespace tessera {
namespace {

class Net : public Module {
 public:
  Net()
      : scale(AddParameter("scale", {3}, Init::Ones())),
        stem(AddChild<layers::Conv2d>("stem", 3, 5, 2)),
        fc(AddChild<layers::Linear>("head.fc", 5, 4)) {}
  Parameter& scale;
  layers::Conv2d& stem;
  layers::Linear& fc;
};

TEST(ParameterStore, NamesParametersByTheirPathInOrder) {
  Net net;
  const ParameterStore store(net, 1, false);
  std::vector<std::string> names;
  for (const auto& entry : store.entries()) names.push_back(entry.name);
  EXPECT_EQ(names, (std::vector<std::string>{"scale", "stem.weight", "stem.bias", "head.fc.weight",
                                             "head.fc.bias"}));
  EXPECT_EQ(store.num_parameters(), 3 + 60 + 5 + 20 + 4);
  EXPECT_EQ(store.Find("stem.bias")->shape(), Shape({5}));
  EXPECT_EQ(store.Find("stem"), nullptr);
  EXPECT_TRUE(store.Find("head.fc.weight")->decays());
  EXPECT_FALSE(store.Find("head.fc.bias")->decays());
}

TEST(ParameterStore, GivesAlignedSlicesOfFlatBuffersAndZeroGaps) {
  Net net;
  const ParameterStore store(net, 1, true);
  for (const auto& entry : store.entries()) {
    EXPECT_EQ(entry.offset % 16, 0);
    EXPECT_EQ(entry.parameter->value().raw(), store.values().data<float>() + entry.offset);
    EXPECT_EQ(entry.parameter->grad().raw(), store.grads().data<float>() + entry.offset);
  }
  EXPECT_EQ(store.values().data<float>()[2], 1.0f);
  for (int i = 3; i < 16; ++i) EXPECT_EQ(store.values().data<float>()[i], 0.0f);
}

TEST(ParameterStore, InitialValuesDependOnSeedAndNameAlone) {
  Net a, b, c;
  const ParameterStore first(a, 1, false), again(b, 1, false), other(c, 2, false);
  const auto same = [](const Tensor& x, const Tensor& y) {
    return std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
  };
  EXPECT_TRUE(same(first.values(), again.values()));
  EXPECT_FALSE(same(first.values(), other.values()));
  const Tensor& stem = first.Find("stem.weight")->value();
  for (int64_t i = 0; i < stem.numel(); ++i) {
    EXPECT_LE(std::abs(stem.data<float>()[i]), 1.0 / std::sqrt(12.0));
  }
}

TEST(ParameterStore, AGradientThroughTheBf16CopyReachesTheParameter) {
  Net net;
  ParameterStore store(net, 3, true);
  Tape tape;
  store.Watch(tape, false);
  const Tensor x = Tensor::Zeros({1, 5}, DType::kBF16);
  Tensor y = net.fc.Forward(x, DType::kF32);
  Tensor loss = Tensor::From<float>({}, std::vector<float>{y.data<float>()[0]});
  Record("first", {&y}, {&loss}, [](GradContext& g) {
    Tensor dy = Tensor::Zeros({1, 4}, DType::kF32);
    dy.data<float>()[0] = *g.out().data<float>();
    g.Add(0, dy);
  });
  tape.Backward(loss, 2.0f);
  EXPECT_EQ(store.Find("head.fc.bias")->grad().data<float>()[0], 2.0f);
  EXPECT_EQ(store.Find("head.fc.bias")->grad().data<float>()[1], 0.0f);
  EXPECT_EQ(store.Find("head.fc.weight")->grad().data<float>()[0], 0.0f);
}

class Counted : public Module {
 public:
  Counted()
      : average(AddBuffer("average", {3}, DType::kF32, 2)),
        weight(AddParameter("weight", {5}, Init::Ones())),
        steps(AddBuffer("steps", {}, DType::kI64, 7)) {}
  Buffer& average;
  Parameter& weight;
  Buffer& steps;
};

TEST(ParameterStore, KeepsBuffersBehindTheParameters) {
  Counted module;
  ParameterStore store(module, 1, true);
  ASSERT_EQ(store.buffers().size(), 2u);
  EXPECT_EQ(store.buffers()[0].name, "average");
  EXPECT_EQ(store.buffers()[0].offset, 16);
  EXPECT_EQ(module.average.value().raw(), store.values().data<float>() + 16);
  EXPECT_EQ(module.average.value().data<float>()[2], 2.0f);
  EXPECT_EQ(*module.steps.value().data<int64_t>(), 7);
  EXPECT_EQ(store.values().numel(), 32);
  EXPECT_EQ(store.grads().numel(), 16);
  EXPECT_EQ(store.bf16().numel(), 16);
  EXPECT_EQ(store.num_parameters(), 5);
  module.weight.value().data<float>()[1] = 3.0f;
  store.RefreshCopies();
  EXPECT_EQ(static_cast<float>(store.bf16().data<BF16>()[1]), 3.0f);
}

}  // namespace
}  // namespace tessera
