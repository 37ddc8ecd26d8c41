#include "autograd/ops/depthwise_conv.h"

#include "tests/gradcheck.h"

namespace tessera {
namespace {

TEST(DepthwiseConvGradient, OfInputWeightAndBiasMatchesFiniteDifferences) {
  for (const bool residual : {false, true}) {
    EXPECT_TRUE(GradientsMatch(
        [residual](const std::vector<Tensor>& in) {
          return DepthwiseConv(in[0], in[1], in[2], residual);
        },
        {RandomTensor({2, 5, 6, 3}, DType::kF32, 1), RandomTensor({3, 1, 3, 3}, DType::kF32, 2),
         RandomTensor({3}, DType::kF32, 3)}));
  }
}

TEST(DepthwiseConvGradient, NeedsNoBias) {
  EXPECT_TRUE(GradientsMatch(
      [](const std::vector<Tensor>& in) { return DepthwiseConv(in[0], in[1], Tensor(), true); },
      {RandomTensor({1, 4, 9, 17}, DType::kF32, 1), RandomTensor({17, 1, 3, 3}, DType::kF32, 2)}));
}

}  // namespace
}  // namespace tessera
