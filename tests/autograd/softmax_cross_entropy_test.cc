#include "autograd/ops/softmax_cross_entropy.h"

#include "tests/gradcheck.h"

namespace tessera {
namespace {

TEST(SoftmaxCrossEntropyGradient, OfTheLogitsMatchesFiniteDifferences) {
  const Tensor targets = RandomTensor({3, 19}, DType::kF32, 2, 0, 1);
  EXPECT_TRUE(GradientsMatch(
      [&](const std::vector<Tensor>& in) { return SoftmaxCrossEntropy(in[0], targets); },
      {RandomTensor({3, 19}, DType::kF32, 1, -3, 3)}));
}

}  // namespace
}  // namespace tessera
