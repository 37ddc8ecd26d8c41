#include "autograd/ops/batch_norm.h"

#include "tests/gradcheck.h"

namespace tessera {
namespace {

std::vector<Tensor> Inputs(int64_t rows, int64_t channels) {
  return {RandomTensor({rows, channels}, DType::kF32, 1, -2, 2),
          RandomTensor({channels}, DType::kF32, 2), RandomTensor({channels}, DType::kF32, 3)};
}

ops::RunningStatistics Running(int64_t channels) {
  return {RandomTensor({channels}, DType::kF32, 5), RandomTensor({channels}, DType::kF32, 6, 1, 2)};
}

TEST(BatchNormGradient, OfInputAndParametersMatchesFiniteDifferences) {
  for (const Activation activation :
       {Activation::kNone, Activation::kGeluTanh, Activation::kSilu}) {
    for (const bool batch_statistics : {true, false}) {
      const auto norm = [&](const std::vector<Tensor>& in) {
        return BatchNorm(in[0], in[1], in[2], Running(in[0].dim(-1)),
                         {.batch_statistics = batch_statistics, .activation = activation},
                         DType::kF32);
      };
      EXPECT_TRUE(GradientsMatch(norm, Inputs(6, 17), {.tolerance = 5e-3}));
    }
  }
}

TEST(BatchNormGradient, AddsUpWhenTheInputIsUsedTwice) {
  const auto norm = [](const Tensor& x, const std::vector<Tensor>& in) {
    return BatchNorm(x, in[1], in[2], Running(3), {.activation = Activation::kSilu}, DType::kF32);
  };
  EXPECT_TRUE(
      GradientsMatch([&](const std::vector<Tensor>& in) { return norm(norm(in[0], in), in); },
                     Inputs(5, 3), {.tolerance = 1e-2}));
}

TEST(BatchNormSqueezeExciteGradient, MatchesFiniteDifferences) {
  constexpr int64_t kChannels = 5, kReduced = 2;
  for (const bool batch_statistics : {true, false}) {
    const auto fn = [&](const std::vector<Tensor>& in) {
      return BatchNormSqueezeExcite(
          in[0], in[1], in[2], Running(kChannels),
          {.batch_statistics = batch_statistics, .activation = Activation::kGeluTanh},
          {in[3], in[4], in[5], in[6]}, DType::kF32);
    };
    EXPECT_TRUE(GradientsMatch(
        fn,
        {RandomTensor({2, 3, 2, kChannels}, DType::kF32, 1, -2, 2),
         RandomTensor({kChannels}, DType::kF32, 2), RandomTensor({kChannels}, DType::kF32, 3),
         RandomTensor({kReduced, kChannels}, DType::kF32, 4),
         RandomTensor({kReduced}, DType::kF32, 5),
         RandomTensor({kChannels, kReduced}, DType::kF32, 6),
         RandomTensor({kChannels}, DType::kF32, 7)},
        {.tolerance = 5e-3}));
  }
}

}  // namespace
}  // namespace tessera
