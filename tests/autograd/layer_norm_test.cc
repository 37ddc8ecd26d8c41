#include "autograd/ops/layer_norm.h"

#include "tests/gradcheck.h"

namespace tessera {
namespace {

constexpr float kEps = 1e-5f;

std::vector<Tensor> Inputs(int64_t rows, int64_t channels) {
  return {RandomTensor({rows, channels}, DType::kF32, 1, -2, 2),
          RandomTensor({channels}, DType::kF32, 2), RandomTensor({channels}, DType::kF32, 3)};
}

TEST(LayerNormGradient, OfInputAndParametersMatchesFiniteDifferences) {
  for (const int64_t channels : {3, 17, 40}) {
    EXPECT_TRUE(GradientsMatch(
        [](const std::vector<Tensor>& in) {
          return LayerNorm(in[0], in[1], in[2], kEps, DType::kF32);
        },
        Inputs(5, channels), {.tolerance = 5e-3}));
  }
}

TEST(LayerNormGradient, AddsUpWhenTheInputIsUsedTwice) {
  EXPECT_TRUE(GradientsMatch(
      [](const std::vector<Tensor>& in) {
        const Tensor y = LayerNorm(in[0], in[1], in[2], kEps, DType::kF32);
        return LayerNorm(y, in[1], in[2], kEps, DType::kF32);
      },
      Inputs(4, 33), {.tolerance = 1e-2}));
}

TEST(LayerNormGradient, OfABf16ResultIsThatOfTheF32ResultRounded) {
  const auto norm = [](DType dtype) {
    return [dtype](const std::vector<Tensor>& in) {
      return LayerNorm(in[0], in[1], in[2], kEps, dtype);
    };
  };
  const auto inputs = Inputs(7, 96);
  EXPECT_TRUE(GradientsAgree(TapeGradients(norm(DType::kF32), inputs),
                             TapeGradients(norm(DType::kBF16), inputs), 0.01));
}

}  // namespace
}  // namespace tessera
