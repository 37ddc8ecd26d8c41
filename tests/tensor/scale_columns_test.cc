#include "tensor/ops/scale_columns/scale_columns.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

class ScaleColumns : public OnEveryTarget {};

TEST_P(ScaleColumns, MatchesDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t rows : {0, 1, 3, 700}) {
      for (const int64_t columns : {1, 7, 16, 33}) {
        const Tensor x = RandomTensor({rows, columns}, dtype, 1);
        const Tensor scale = RandomTensor({columns}, DType::kF32, 2, -3, 3);
        std::vector<double> expected = ToDouble(x);
        for (int64_t i = 0; i < x.numel(); ++i) expected[i] *= At(scale, i % columns);
        const Tensor y = Tensor::Empty(x.shape(), dtype);
        ops::ScaleColumnsTo(x, scale, y);
        ExpectClose(y, expected, 1e-6);
        ops::ScaleColumnsTo(x, scale, x);
        ExpectClose(x, expected, 1e-6);
      }
    }
  }
}

TEST_P(ScaleColumns, GradientsMatchDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t rows : {0, 1, 513, 2000}) {
      for (const int64_t columns : {1, 7, 16, 33}) {
        const Tensor dy = RandomTensor({rows, columns}, dtype, 1);
        const Tensor x = RandomTensor({rows, columns}, dtype, 2);
        const Tensor scale = RandomTensor({columns}, DType::kF32, 3, -3, 3);
        const bool accumulate = columns % 2 == 1;
        const Tensor dscale = RandomTensor({columns}, DType::kF32, 4);
        std::vector<double> dx(x.numel()), sums(columns);
        if (accumulate) sums = ToDouble(dscale);
        for (int64_t i = 0; i < x.numel(); ++i) {
          dx[i] = At(dy, i) * At(scale, i % columns);
          sums[i % columns] += At(dy, i) * At(x, i);
        }
        // In the place of dy, too.
        const Tensor to = rows == 513 ? dy : Tensor::Empty(x.shape(), dtype);
        ops::ScaleColumnsBackward(dy, x, scale, to, dscale, accumulate);
        ExpectClose(to, dx, 1e-6);
        ExpectClose(dscale, sums, 1e-4);
      }
    }
  }
}

TEST_P(ScaleColumns, HasTheSameBitsForAnyNumberOfThreads) {
  const Tensor dy = RandomTensor({5000, 33}, DType::kF32, 1);
  const Tensor x = RandomTensor({5000, 33}, DType::kF32, 2);
  const Tensor scale = RandomTensor({33}, DType::kF32, 3);
  ExpectSameBitsForAnyThreads([&] {
    const Tensor dx = Tensor::Empty(x.shape(), DType::kF32);
    const Tensor dscale = Tensor::Empty({33}, DType::kF32);
    ops::ScaleColumnsBackward(dy, x, scale, dx, dscale, /*accumulate=*/false);
    return std::vector<Tensor>{dx, dscale};
  });
}

INSTANTIATE_ON_EVERY_TARGET(ScaleColumns);

TEST(ScaleColumnsDeathTest, WrongShapesAreNamed) {
  const Tensor x = Tensor::Zeros({2, 3}, DType::kF32), scale = Tensor::Zeros({2}, DType::kF32);
  EXPECT_DEATH(ops::ScaleColumnsTo(x, scale, x), "f32\\[2, 3\\] by f32\\[2\\]");
}

}  // namespace
}  // namespace tessera
