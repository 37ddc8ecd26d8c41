#include "attention/window/window.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

TEST(WindowAttentionModule, NamesItsParametersAsCheckpointsDo) {
  attention::WindowAttention with_bias(6, 2, 7, true), without(6, 2, 7, false);
  const auto names = [](Module& module) {
    std::vector<std::string> result;
    module.VisitParameters([&](const std::string& name, Parameter&) { result.push_back(name); });
    return result;
  };
  EXPECT_EQ(names(with_bias),
            (std::vector<std::string>{"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}));
  EXPECT_EQ(names(without), (std::vector<std::string>{"qkv.weight", "proj.weight", "proj.bias"}));
}

// With a zero map every q, k and v is the bias, so the attention gives v's bias everywhere,
// whatever is padded, and only if padded positions hold the bias too.
TEST(WindowAttentionModule, PadsWithTheBiasOfTheProjection) {
  attention::WindowAttention module(6, 2, 7, true);
  ParameterStore store(module, 1, true);
  const Tensor& bias = store.Find("qkv.bias")->value();
  for (int64_t i = 0; i < bias.numel(); ++i) Set(bias, i, 0.25 * static_cast<double>(i));
  const Tensor& proj = store.Find("proj.weight")->value();
  proj.FillZero();
  for (int64_t i = 0; i < 6; ++i) Set(proj, 7 * i, 1);
  store.RefreshCopies();
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor x = Tensor::Zeros({2, 5, 9, 6}, dtype);
    const Tensor y = module.Forward(x, DType::kF32);
    ASSERT_EQ(y.shape(), x.shape());
    ASSERT_EQ(y.dtype(), DType::kF32);
    for (int64_t i = 0; i < y.numel(); ++i) {
      ASSERT_NEAR(At(y, i), At(bias, 12 + i % 6), 3e-6) << "element " << i;
    }
  }
}

// d loss / d bias of the module reaches the bias twice, through the projection and as padding;
// together they are the derivative of the loss.
TEST(WindowAttentionModule, AddsThePaddingsGradientToThatOfTheBias) {
  attention::WindowAttention module(4, 2, 7, true);
  ParameterStore store(module, 1, false);
  store.values().CopyFrom(RandomTensor(store.values().shape(), DType::kF32, 3));
  const Tensor x = RandomTensor({1, 4, 9, 4}, DType::kF32, 4);
  const auto forward = [&] {
    Tensor y = module.Forward(x, DType::kF32);
    Tensor loss = Tensor::Zeros({}, DType::kF32);
    double sum = 0;
    for (int64_t i = 0; i < y.numel(); ++i) sum += std::sin(static_cast<double>(i)) * At(y, i);
    *loss.data<float>() = static_cast<float>(sum);
    Record("wave", {&y}, {&loss}, [shape = y.shape()](GradContext& g) {
      const Tensor dy = Tensor::Empty(shape, DType::kF32);
      for (int64_t i = 0; i < dy.numel(); ++i) Set(dy, i, std::sin(static_cast<double>(i)));
      g.Add(0, dy);
    });
    return std::pair(sum, loss);
  };
  {
    Tape tape;
    store.Watch(tape, false);
    tape.Backward(forward().second);
  }
  const Parameter& bias = *store.Find("qkv.bias");
  for (int64_t i = 0; i < bias.value().numel(); ++i) {
    const double before = At(bias.value(), i);
    Set(bias.value(), i, before + 0.01);
    const double above = forward().first;
    Set(bias.value(), i, before - 0.01);
    const double below = forward().first;
    Set(bias.value(), i, before);
    EXPECT_NEAR(At(bias.grad(), i), (above - below) / 0.02, 2e-3) << "bias " << i;
  }
}

TEST(WindowAttentionDeathTest, WrongShapesAreNamed) {
  const Tensor qkv = Tensor::Zeros({1, 2, 2, 10}, DType::kF32);
  EXPECT_DEATH(WindowAttention(qkv, Tensor(), 2, 7), "qkv f32\\[1, 2, 2, 10\\].*2 heads");
}

}  // namespace
}  // namespace tessera
