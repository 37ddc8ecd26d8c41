#include "autograd/ops/gelu.h"

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

}  // namespace
}  // namespace tessera
