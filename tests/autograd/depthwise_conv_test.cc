#include "autograd/ops/depthwise_conv.h"

#include "tests/gradcheck.h"

namespace tessera {
namespace {

TEST(DepthwiseConvGradient, OfInputWeightAndBiasMatchesFiniteDifferences) {
  for (const int64_t kernel_size : {3, 5, 7}) {
    const Conv2dGeometry centred = Conv2dGeometry::Centred(kernel_size);
    for (const auto& [geometry, residual] : std::vector<std::pair<Conv2dGeometry, bool>>{
             {centred, false}, {centred, true}, {{2, 1, 0, 2, 3}, false}}) {
      EXPECT_TRUE(GradientsMatch(
          [geometry = geometry, residual = residual](const std::vector<Tensor>& in) {
            return DepthwiseConv(in[0], in[1], in[2], geometry, residual);
          },
          {RandomTensor({2, 5, 6, 3}, DType::kF32, 1),
           RandomTensor({3, 1, kernel_size, kernel_size}, DType::kF32, 2),
           RandomTensor({3}, DType::kF32, 3)}));
    }
  }
}

TEST(DepthwiseConvGradient, NeedsNoBias) {
  EXPECT_TRUE(GradientsMatch(
      [](const std::vector<Tensor>& in) {
        return DepthwiseConv(in[0], in[1], Tensor(), Conv2dGeometry::Centred(3), true);
      },
      {RandomTensor({1, 4, 9, 17}, DType::kF32, 1), RandomTensor({17, 1, 3, 3}, DType::kF32, 2)}));
}

}  // namespace
}  // namespace tessera
