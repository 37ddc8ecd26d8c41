#include "autograd/ops/activation.h"

#include "tests/gradcheck.h"

namespace tessera {
namespace {

TEST(ActivationGradient, MatchesFiniteDifferences) {
  for (const Activation activation : {Activation::kNone, Activation::kGelu, Activation::kGeluTanh,
                                      Activation::kSilu, Activation::kSigmoid, Activation::kTanh}) {
    EXPECT_TRUE(
        GradientsMatch([&](const std::vector<Tensor>& in) { return Activate(in[0], activation); },
                       {RandomTensor({5, 7}, DType::kF32, 1, -4, 4)}));
  }
}

TEST(ActivationGradient, LeavesAGradientThatIsSharedAlone) {
  const auto twice = [](const std::vector<Tensor>& in) {
    Tensor y = Tensor::Empty(in[0].shape(), DType::kF32);
    const Tensor a = Activate(in[0], Activation::kGelu), b = Activate(in[0], Activation::kGelu);
    for (int64_t i = 0; i < y.numel(); ++i) Set(y, i, At(a, i) + At(b, i));
    Record("sum", {&a, &b}, {&y}, [](GradContext& g) {
      g.Add(0, g.out());
      g.Add(1, g.out());
    });
    return y;
  };
  EXPECT_TRUE(GradientsMatch(twice, {RandomTensor({35}, DType::kF32, 1, -4, 4)}));
}

TEST(Activation, TakesTheMemoryOfAMovedInputWhenNothingIsRecorded) {
  Tensor x = RandomTensor({3, 5}, DType::kF32, 1);
  const void* memory = x.raw();
  EXPECT_NE(Activate(x, Activation::kSilu).raw(), memory);
  EXPECT_EQ(Activate(std::move(x), Activation::kSilu).raw(), memory);
}

}  // namespace
}  // namespace tessera
