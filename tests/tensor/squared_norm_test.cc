#include "tensor/ops/squared_norm/squared_norm.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

class SquaredNorm : public OnEveryTarget {};

TEST_P(SquaredNorm, MatchesDoublePrecision) {
  for (const int64_t n : {0, 1, 3, 17, 1000, 100003}) {
    const Tensor x = RandomTensor({n}, DType::kF32, 1);
    double expected = 0;
    for (int64_t i = 0; i < n; ++i) expected += At(x, i) * At(x, i);
    EXPECT_NEAR(ops::SquaredNorm(x), expected, 1e-13 * expected);
  }
}

TEST_P(SquaredNorm, NeitherOverflowsNorHidesNan) {
  const Tensor x = Tensor::Zeros({100}, DType::kF32);
  Set(x, 99, 1e30);
  EXPECT_NEAR(ops::SquaredNorm(x), 1e60, 1e54);
  Set(x, 50, NAN);
  EXPECT_TRUE(std::isnan(ops::SquaredNorm(x)));
}

TEST_P(SquaredNorm, HasTheSameBitsForAnyNumberOfThreads) {
  const Tensor x = RandomTensor({300001}, DType::kF32, 1);
  ExpectSameBitsForAnyThreads([&] {
    return std::vector<Tensor>{Tensor::From<double>({1}, std::vector{ops::SquaredNorm(x)})};
  });
}

INSTANTIATE_ON_EVERY_TARGET(SquaredNorm);

}  // namespace
}  // namespace tessera
