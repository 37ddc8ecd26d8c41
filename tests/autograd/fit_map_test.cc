#include "autograd/ops/fit_map.h"

#include "tests/gradcheck.h"

namespace tessera {
namespace {

TEST(FitMapGradient, MatchesFiniteDifferences) {
  for (const auto& [height, width] :
       std::vector<std::pair<int64_t, int64_t>>{{3, 4}, {5, 6}, {2, 1}, {4, 3}}) {
    EXPECT_TRUE(GradientsMatch(
        [height = height, width = width](const std::vector<Tensor>& in) {
          return FitMap(in[0], height, width);
        },
        {RandomTensor({2, 3, 4, 5}, DType::kF32, 1)}));
  }
}

}  // namespace
}  // namespace tessera
