#include "tensor/ops/fit_map/fit_map.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

class FitMap : public OnEveryTarget {};

TEST_P(FitMap, CutsOrPadsEitherSide) {
  for (const int64_t channels : {1, 3, 8, 24}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor x = RandomTensor({2, 5, 4, channels}, dtype, 1);
      for (const auto& [height, width] :
           std::vector<std::pair<int64_t, int64_t>>{{5, 4}, {7, 6}, {3, 2}, {8, 1}, {1, 9}}) {
        const Tensor y = ops::FitMap(x, height, width);
        ASSERT_EQ(y.shape(), Shape({2, height, width, channels}));
        std::vector<double> expected(y.numel());
        for (int64_t i = 0; i < y.numel(); ++i) {
          const int64_t c = i % channels, w = i / channels % width;
          const int64_t h = i / channels / width % height, b = i / channels / width / height;
          if (h < 5 && w < 4) expected[i] = At(x, ((b * 5 + h) * 4 + w) * channels + c);
        }
        ExpectClose(y, expected, 0);
      }
    }
  }
}

TEST_P(FitMap, TakesEmptyMaps) {
  const Tensor x = Tensor::Empty({2, 0, 3, 4}, DType::kF32);
  ExpectClose(ops::FitMap(x, 2, 2), std::vector<double>(32), 0);
  EXPECT_EQ(ops::FitMap(ops::FitMap(x, 2, 2), 0, 2).numel(), 0);
}

INSTANTIATE_ON_EVERY_TARGET(FitMap);

}  // namespace
}  // namespace tessera
