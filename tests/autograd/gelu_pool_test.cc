#include "autograd/ops/gelu_pool.h"

#include "tests/gradcheck.h"

namespace tessera {
namespace {

TEST(GeluPoolGradient, MatchesFiniteDifferences) {
  EXPECT_TRUE(GradientsMatch([](const std::vector<Tensor>& in) { return GeluPool(in[0], 2, 3); },
                             {RandomTensor({2, 5, 6, 3}, DType::kF32, 1, -2, 2)}));
}

}  // namespace
}  // namespace tessera
