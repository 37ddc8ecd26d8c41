#include "tensor/ops/column_sum/column_sum.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/random.h"
#include "tensor/ops/cast/cast.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

Tensor Random(const Shape& shape, uint64_t seed) {
  RandomStream random(seed, Purpose::kTest);
  Tensor t = Tensor::Empty(shape, DType::kF32);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = static_cast<float>(random.Normal());
  return t;
}

TEST(ColumnSum, MatchesDoublePrecisionAtOddSizes) {
  for (const int64_t rows : {0, 1, 511, 513, 2000}) {
    for (const int64_t columns : {1, 3, 7, 17, 96}) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        const Tensor x = ops::Cast(Random({rows, columns}, 1), dtype);
        const Tensor exact = ops::Cast(x, DType::kF32);
        const Tensor sum = Random({columns}, 2);
        const Tensor before = sum.Clone();
        const bool accumulate = columns % 2 == 1;
        ops::ColumnSum(x, sum, accumulate);
        for (int64_t c = 0; c < columns; ++c) {
          double expected = accumulate ? before.data<float>()[c] : 0.0;
          for (int64_t r = 0; r < rows; ++r) expected += exact.data<float>()[r * columns + c];
          ASSERT_NEAR(sum.data<float>()[c], expected, 2e-4) << rows << "x" << columns << " " << c;
        }
      }
    }
  }
}

TEST(ColumnSum, HasTheSameBitsForAnyNumberOfThreads) {
  const Tensor x = Random({5000, 33}, 3);
  ExpectSameBitsForAnyThreads([&]() -> std::vector<Tensor> {
    const Tensor sum = Tensor::Empty({33}, DType::kF32);
    ops::ColumnSum(x, sum, false);
    return {sum};
  });
}

TEST(Cast, RoundsLikeTheScalarConversion) {
  const Tensor x = Random({1003}, 4);
  x.data<float>()[5] = NAN;
  const Tensor y = ops::Cast(x, DType::kBF16);
  for (int64_t i = 0; i < x.numel(); ++i) {
    ASSERT_EQ(y.data<BF16>()[i].bits, BF16(x.data<float>()[i]).bits) << i;
  }
}

}  // namespace
}  // namespace tessera
