#include "tensor/ops/mean_pool/mean_pool.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

const Shape kShapes[] = {{1, 1, 1, 1}, {2, 7, 7, 96}, {3, 5, 17}, {1, 3, 2, 3}, {4, 1, 40}};

class MeanPool : public OnEveryTarget {};

TEST_P(MeanPool, MatchesDoublePrecision) {
  for (const Shape& shape : kShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor x = RandomTensor(shape, dtype, 1);
      const int64_t batch = shape[0], channels = shape[-1], pixels = x.numel() / batch / channels;
      std::vector<double> mean(batch * channels);
      for (int64_t i = 0; i < x.numel(); ++i) {
        mean[i / (pixels * channels) * channels + i % channels] += At(x, i) / pixels;
      }
      const Tensor y = ops::MeanPool(x);
      EXPECT_EQ(y.shape(), Shape({batch, channels}));
      ExpectClose(y, mean, 1e-6);
    }
  }
}

TEST_P(MeanPool, BackwardMatchesDoublePrecisionAndAccumulates) {
  for (const Shape& shape : kShapes) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const int64_t batch = shape[0], channels = shape[-1];
      const int64_t pixels = shape.numel() / batch / channels;
      const Tensor dy = RandomTensor({batch, channels}, DType::kF32, 1);
      std::vector<double> expected(shape.numel());
      for (int64_t i = 0; i < shape.numel(); ++i) {
        expected[i] = At(dy, i / (pixels * channels) * channels + i % channels) / pixels;
      }
      const Tensor dx = Tensor::Empty(shape, dtype);
      ops::MeanPoolBackward(dy, dx, false);
      ExpectClose(dx, expected, 1e-6);
      const Tensor more = RandomTensor(shape, dtype, 2);
      for (int64_t i = 0; i < shape.numel(); ++i) expected[i] += At(more, i);
      ops::MeanPoolBackward(dy, more, true);
      ExpectClose(more, expected, 1e-6);
    }
  }
}

TEST_P(MeanPool, EmptyBatchIsFine) {
  const Tensor x = Tensor::Empty({0, 4, 4, 3}, DType::kF32);
  const Tensor y = ops::MeanPool(x);
  EXPECT_EQ(y.shape(), Shape({0, 3}));
  ops::MeanPoolBackward(y, x, false);
}

INSTANTIATE_ON_EVERY_TARGET(MeanPool);

}  // namespace
}  // namespace tessera
