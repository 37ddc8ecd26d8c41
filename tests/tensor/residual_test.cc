#include "tensor/ops/residual/residual.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

const Shape kShapes[] = {{1, 1}, {3, 7}, {2, 5, 17}, {4, 40001}, {5, 1}};

class Residual : public OnEveryTarget {};

TEST_P(Residual, SumMatchesDoublePrecisionAlsoInPlace) {
  for (const Shape& shape : kShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor x = RandomTensor(shape, DType::kF32, 1), r = RandomTensor(shape, dtype, 2);
      const Tensor scale = RandomTensor({shape[0]}, DType::kF32, 3);
      const int64_t n = x.numel() / shape[0];
      std::vector<double> plain(x.numel()), scaled(x.numel());
      for (int64_t i = 0; i < x.numel(); ++i) {
        plain[i] = At(x, i) + At(r, i);
        scaled[i] = At(x, i) + At(scale, i / n) * At(r, i);
      }
      const Tensor y = Tensor::Empty(shape, DType::kF32);
      ops::AddResidualTo(x, r, Tensor(), y);
      ExpectClose(y, plain, 1e-6);
      ops::AddResidualTo(x, r, scale, y);
      ExpectClose(y, scaled, 1e-6);
      const Tensor in_place = dtype == DType::kF32 ? r : x;
      ops::AddResidualTo(x, r, scale, in_place);
      ExpectClose(in_place, scaled, 1e-6);
    }
  }
}

TEST_P(Residual, ScaleSamplesMatchesDoublePrecision) {
  for (const Shape& shape : kShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor x = RandomTensor(shape, DType::kF32, 1);
      const Tensor scale = RandomTensor({shape[0]}, DType::kF32, 2);
      const int64_t n = x.numel() / shape[0];
      std::vector<double> expected = ToDouble(x);
      ExpectClose(ops::ScaleSamples(x, Tensor(), dtype), expected, 0);
      for (int64_t i = 0; i < x.numel(); ++i) expected[i] *= At(scale, i / n);
      ExpectClose(ops::ScaleSamples(x, scale, dtype), expected, 1e-6);
    }
  }
}

TEST_P(Residual, EmptyBatchIsFine) {
  const Tensor x = Tensor::Empty({0, 4}, DType::kF32), scale = Tensor::Empty({0}, DType::kF32);
  ops::AddResidualTo(x, x, scale, x);
  EXPECT_EQ(ops::ScaleSamples(x, scale, DType::kBF16).shape(), x.shape());
}

INSTANTIATE_ON_EVERY_TARGET(Residual);

}  // namespace
}  // namespace tessera
