#include "tensor/ops/cast/cast.h"

#include <bit>

#include "tests/op_testing.h"

namespace tessera {
namespace {

class Cast : public OnEveryTarget {};

TEST_P(Cast, RoundsToNearestEvenLikeTheScalarType) {
  std::vector<float> values = {0.0f, -0.0f, 1.0f, 1.00390625f, 1.01171875f, 3.4e38f, 1e-40f};
  values.push_back(std::numeric_limits<float>::infinity());
  values.push_back(-std::numeric_limits<float>::infinity());
  RandomStream random(1, Purpose::kTest);
  while (values.size() < 1003) values.push_back(std::bit_cast<float>(random.Next()));
  const Tensor x = Tensor::From<float>({1003}, values);
  const Tensor y = ops::Cast(x, DType::kBF16);
  const Tensor z = ops::Cast(y, DType::kF32);
  for (int64_t i = 0; i < x.numel(); ++i) {
    BF16 expected(values[i]);
    // Subnormals may become zero.
    if (std::fpclassify(values[i]) == FP_SUBNORMAL && At(y, i) == 0) expected.bits &= 0x8000;
    ASSERT_EQ(y.data<BF16>()[i].bits, expected.bits) << values[i];
    ASSERT_EQ(std::bit_cast<uint32_t>(z.data<float>()[i]), uint32_t{expected.bits} << 16);
  }
}

TEST_P(Cast, NanStaysNan) {
  const std::vector<float> values(9, std::bit_cast<float>(0x7F800001u));
  const Tensor y = ops::Cast(Tensor::From<float>({9}, values), DType::kBF16);
  for (int64_t i = 0; i < 9; ++i) EXPECT_TRUE(std::isnan(At(y, i)));
}

TEST_P(Cast, WritesExactlyTheElementsOfItsOutput) {
  for (int64_t n = 0; n < 40; ++n) {
    const Tensor x = RandomTensor({n}, DType::kF32, n);
    const Tensor whole = RandomTensor({n + 2}, DType::kBF16, 7);
    const Tensor before = whole.Clone();
    ops::CastTo(x, whole.Slice(1, n + 1));
    EXPECT_EQ(At(whole, 0), At(before, 0));
    EXPECT_EQ(At(whole, n + 1), At(before, n + 1));
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_EQ(whole.data<BF16>()[i + 1].bits, BF16(x.data<float>()[i]).bits);
    }
  }
}

TEST_P(Cast, SameDtypeSharesStorage) {
  const Tensor x = RandomTensor({3}, DType::kF32, 1);
  EXPECT_EQ(ops::Cast(x, DType::kF32).raw(), x.raw());
}

INSTANTIATE_ON_EVERY_TARGET(Cast);

}  // namespace
}  // namespace tessera
