#include "tensor/tensor.h"

#include <gtest/gtest.h>

#include <vector>

#include "tensor/ops/add/add.h"

namespace tessera {
namespace {

TEST(Tensor, ReshapeAndSliceShareStorage) {
  const std::vector<float> values = {0, 1, 2, 3, 4, 5};
  const Tensor t = Tensor::From<float>({3, 2}, values);
  const Tensor row = t.Slice(1, 3);
  EXPECT_EQ(row.shape(), Shape({2, 2}));
  EXPECT_EQ(row.data<float>()[0], 2.0f);
  t.Reshape({6}).data<float>()[2] = 9.0f;
  EXPECT_EQ(row.data<float>()[0], 9.0f);
  EXPECT_FALSE(t.unique());
}

TEST(Tensor, EmptyDimensionsAreAllowed) {
  const Tensor t = Tensor::Zeros({0, 5}, DType::kF32);
  EXPECT_EQ(t.numel(), 0);
  EXPECT_EQ(t.Clone().shape(), Shape({0, 5}));
}

TEST(TensorDeathTest, AWrongTypeOrShapeNamesBoth) {
  const Tensor t = Tensor::Zeros({2, 3}, DType::kF32);
  EXPECT_DEATH(t.data<int64_t>(), "i64.*f32 tensor \\[2, 3\\]");
  EXPECT_DEATH(t.Reshape({7}), "\\[2, 3\\] to \\[7\\]");
  EXPECT_DEATH(t.Slice(1, 3), "\\[1, 3\\)");
}

TEST(BFloat16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(static_cast<float>(BF16(1.00390625f)), 1.0f);        // halfway, to even
  EXPECT_EQ(static_cast<float>(BF16(1.01171875f)), 1.015625f);   // halfway, to even
  EXPECT_EQ(static_cast<float>(BF16(1.0039064f)), 1.0078125f);  // just above halfway
  EXPECT_TRUE(std::isnan(static_cast<float>(BF16(std::nanf("")))));
}

template <typename Y, typename X>
void TestAdd(int64_t n) {
  Tensor y = Tensor::Empty({n}, kDTypeOf<Y>);
  Tensor x = Tensor::Empty({n}, kDTypeOf<X>);
  for (int64_t i = 0; i < n; ++i) {
    y.data<Y>()[i] = Y(static_cast<float>(i % 7));
    x.data<X>()[i] = X(static_cast<float>(i % 5) - 2.0f);
  }
  ops::AddInPlace(y, x);
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_EQ(static_cast<float>(y.data<Y>()[i]), static_cast<float>(i % 7 + i % 5) - 2.0f) << i;
  }
}

TEST(AddInPlace, AddsEveryMixOfTypesAtOddSizes) {
  for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{17}, int64_t{100003}}) {
    TestAdd<float, float>(n);
    TestAdd<float, BF16>(n);
    TestAdd<BF16, float>(n);
    TestAdd<BF16, BF16>(n);
  }
}

}  // namespace
}  // namespace tessera
