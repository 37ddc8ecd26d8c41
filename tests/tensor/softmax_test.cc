#include "tensor/ops/softmax/softmax.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

class Softmax : public OnEveryTarget {};

TEST_P(Softmax, MatchesDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t columns : {1, 3, 7, 17, 1000}) {
      // Far from zero on either side: the exponential must not overflow, nor the row vanish.
      for (const double offset : {-300.0, 0.0, 300.0}) {
        const Tensor x = RandomTensor({35, columns}, dtype, 1, offset - 9, offset + 9);
        std::vector<double> expected(x.numel());
        for (int64_t r = 0; r < 35; ++r) {
          double sum = 0;
          for (int64_t c = 0; c < columns; ++c) sum += std::exp(At(x, r * columns + c) - offset);
          for (int64_t c = 0; c < columns; ++c) {
            expected[r * columns + c] = std::exp(At(x, r * columns + c) - offset) / sum;
          }
        }
        ExpectClose(ops::Softmax(x), expected, 1e-6);
      }
    }
  }
}

TEST_P(Softmax, NoRowsAreFine) {
  EXPECT_EQ(ops::Softmax(Tensor::Empty({0, 5}, DType::kF32)).shape(), Shape({0, 5}));
}

INSTANTIATE_ON_EVERY_TARGET(Softmax);

}  // namespace
}  // namespace tessera
