#include "tensor/ops/average_pool/average_pool.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

class AveragePool : public OnEveryTarget {};

TEST_P(AveragePool, ForwardAndBackwardMatchDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [h, w] : std::vector<std::pair<int64_t, int64_t>>{{2, 2}, {5, 4}, {1, 3}}) {
      for (const int64_t channels : {1, 5, 8, 33}) {
        const Tensor x = RandomTensor({2, h, w, channels}, dtype, 1);
        const Shape pooled = {2, (h + 1) / 2, (w + 1) / 2, channels};
        const Tensor dy = RandomTensor(pooled, dtype, 2), dx = RandomTensor(x.shape(), dtype, 3);
        std::vector<double> y(pooled.numel()), expected_dx = ToDouble(dx), added = expected_dx;
        for (int64_t i = 0; i < x.numel(); ++i) {
          const int64_t c = i % channels, column = i / channels % w, row = i / channels / w % h;
          const int64_t b = i / (channels * w * h);
          const int64_t to = ((b * pooled[1] + row / 2) * pooled[2] + column / 2) * channels + c;
          y[to] += 0.25 * At(x, i);
          expected_dx[i] = 0.25 * At(dy, to);
          added[i] += expected_dx[i];
        }
        for (const DType out : {DType::kF32, DType::kBF16}) {
          ExpectClose(ops::AveragePool(x, out), y, 1e-6);
        }
        ops::AveragePoolBackward(dy, dx, true);
        ExpectClose(dx, added, 1e-6);
        ops::AveragePoolBackward(dy, dx, false);
        ExpectClose(dx, expected_dx, 1e-6);
      }
    }
  }
}

TEST_P(AveragePool, EmptyMapsGiveEmptyMaps) {
  const Tensor x = Tensor::Empty({2, 0, 3, 4}, DType::kF32);
  const Tensor y = ops::AveragePool(x, DType::kF32);
  EXPECT_EQ(y.shape(), Shape({2, 0, 2, 4}));
  ops::AveragePoolBackward(y, x, false);
}

INSTANTIATE_ON_EVERY_TARGET(AveragePool);

TEST(AveragePoolDeathTest, WrongShapesAreNamed) {
  EXPECT_DEATH(ops::AveragePool(Tensor::Zeros({2, 3}, DType::kF32), DType::kF32), "f32\\[2, 3\\]");
}

}  // namespace
}  // namespace tessera
