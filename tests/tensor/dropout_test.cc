#include "tensor/ops/dropout/dropout.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

class Dropout : public OnEveryTarget {};

TEST_P(Dropout, KeepsTheElementsThatTheRandomStreamSays) {
  const double rate = 0.3;
  const RandomKey key(7, Purpose::kDropout, 11, (uint64_t{5} << 32) + 3);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {1, 3, 4, 17, 63, 100, 40003}) {
      const Tensor x = RandomTensor({n}, dtype, 1);
      RandomStream random(key);
      std::vector<double> expected(n);
      for (int64_t i = 0; i < n; ++i) {
        expected[i] = random.Next() < rate * 0x1p32 ? 0 : At(x, i) / (1 - rate);
      }
      const Tensor y = Tensor::Empty({n}, dtype);
      ops::DropoutTo(x, rate, key, y);
      ExpectClose(y, expected, 1e-6);
      ops::DropoutTo(x, rate, key, x);
      ExpectClose(x, expected, 1e-6);
    }
  }
}

TEST_P(Dropout, DropsTheShareAskedFor) {
  const int64_t n = 100000;
  for (const double rate : {0.0, 0.1, 0.5, 0.9}) {
    const Tensor x = RandomTensor({n}, DType::kF32, 1, 1, 2);
    ops::DropoutTo(x, rate, RandomKey(1, Purpose::kDropout), x);
    int64_t dropped = 0;
    for (int64_t i = 0; i < n; ++i) dropped += At(x, i) == 0;
    EXPECT_NEAR(dropped, rate * n, 5 * std::sqrt(rate * (1 - rate) * n));
  }
}

TEST_P(Dropout, OfNothingIsFine) {
  const Tensor x = Tensor::Empty({0}, DType::kF32);
  ops::DropoutTo(x, 0.5, RandomKey(1, Purpose::kDropout), x);
}

INSTANTIATE_ON_EVERY_TARGET(Dropout);

}  // namespace
}  // namespace tessera
