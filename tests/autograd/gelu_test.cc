#include "autograd/ops/gelu.h"

#include "autograd/ops/linear.h"
#include "tests/gradcheck.h"

namespace tessera {
namespace {

TEST(GeluGradient, MatchesFiniteDifferences) {
  EXPECT_TRUE(GradientsMatch([](const std::vector<Tensor>& in) { return Gelu(in[0]); },
                             {RandomTensor({5, 7}, DType::kF32, 1, -4, 4)}));
}

TEST(GeluGradient, LeavesAGradientThatIsSharedAlone) {
  const auto twice = [](const std::vector<Tensor>& in) {
    Tensor y = Tensor::Empty(in[0].shape(), DType::kF32);
    const Tensor a = Gelu(in[0]), b = Gelu(in[0]);
    for (int64_t i = 0; i < y.numel(); ++i) Set(y, i, At(a, i) + At(b, i));
    Record("sum", {&a, &b}, {&y}, [](GradContext& g) {
      g.Add(0, g.out());
      g.Add(1, g.out());
    });
    return y;
  };
  EXPECT_TRUE(GradientsMatch(twice, {RandomTensor({35}, DType::kF32, 1, -4, 4)}));
}

TEST(Gelu, TakesTheMemoryOfAMovedInputWhenNothingIsRecorded) {
  Tensor x = RandomTensor({3, 5}, DType::kF32, 1);
  const void* memory = x.raw();
  EXPECT_NE(Gelu(x).raw(), memory);
  EXPECT_EQ(Gelu(std::move(x)).raw(), memory);
}

std::vector<Tensor> LinearInputs() {
  return {RandomTensor({2, 3, 7}, DType::kF32, 1), RandomTensor({5, 7}, DType::kF32, 2),
          RandomTensor({5}, DType::kF32, 3)};
}

TEST(LinearGeluGradient, MatchesFiniteDifferences) {
  EXPECT_TRUE(
      GradientsMatch([](const std::vector<Tensor>& in) { return LinearGelu(in[0], in[1], in[2]); },
                     LinearInputs()));
}

TEST(LinearGeluGradient, IsThatOfLinearAndGelu) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    // The operands of the product as aliases of the f32 inputs in `dtype`.
    const auto operands = [dtype](const std::vector<Tensor>& in) {
      std::vector<Tensor> out = {ops::Cast(in[0], dtype), ops::Cast(in[1], dtype), in[2]};
      for (int k = 0; k < 2; ++k) Tape::Alias(in[k], out[k]);
      return out;
    };
    const auto fused = [&](const std::vector<Tensor>& in) {
      const auto o = operands(in);
      return LinearGelu(o[0], o[1], o[2]);
    };
    const auto separate = [&](const std::vector<Tensor>& in) {
      const auto o = operands(in);
      return Gelu(Linear(o[0], o[1], o[2], dtype));
    };
    EXPECT_TRUE(GradientsAgree(TapeGradients(fused, LinearInputs()),
                               TapeGradients(separate, LinearInputs()), 0.01));
  }
}

}  // namespace
}  // namespace tessera
