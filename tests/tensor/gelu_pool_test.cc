#include "tensor/ops/gelu_pool/gelu_pool.h"

#include <numbers>

#include "tests/op_testing.h"

namespace tessera {
namespace {

double Phi(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

double GeluDerivative(double x) {
  return Phi(x) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
}

// Maps with cells that fit, that overlap, that are single pixels, and more cells than pixels.
struct Case {
  int64_t batch, height, width, channels, pooled_height, pooled_width;
};
const Case kCases[] = {{2, 8, 12, 16, 4, 3}, {1, 7, 10, 5, 3, 4}, {2, 5, 3, 33, 5, 3},
                       {1, 9, 2, 1, 2, 3},   {3, 1, 1, 7, 1, 1},  {1, 14, 14, 48, 7, 7}};

// The share of pixel `at` in cell `cell` of an axis, from the definition of adaptive pooling.
double Share(int64_t at, int64_t cell, int64_t size, int64_t cells) {
  const int64_t begin = cell * size / cells;
  const auto end = static_cast<int64_t>(
      std::ceil(static_cast<double>((cell + 1) * size) / static_cast<double>(cells)));
  return at >= begin && at < end ? 1.0 / static_cast<double>(end - begin) : 0.0;
}

// Calls fn(index of the pixel's element, index of the cell's element, share) for all that meet.
template <typename Fn>
void ForEachShare(const Case& c, const Fn& fn) {
  for (int64_t b = 0; b < c.batch; ++b)
    for (int64_t y = 0; y < c.height; ++y)
      for (int64_t x = 0; x < c.width; ++x)
        for (int64_t i = 0; i < c.pooled_height; ++i)
          for (int64_t j = 0; j < c.pooled_width; ++j) {
            const double share =
                Share(y, i, c.height, c.pooled_height) * Share(x, j, c.width, c.pooled_width);
            if (share == 0) continue;
            for (int64_t channel = 0; channel < c.channels; ++channel) {
              fn(((b * c.height + y) * c.width + x) * c.channels + channel,
                 ((b * c.pooled_height + i) * c.pooled_width + j) * c.channels + channel, share);
            }
          }
}

class GeluPool : public OnEveryTarget {};

TEST_P(GeluPool, MatchesDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Case& c : kCases) {
      const Tensor x = RandomTensor({c.batch, c.height, c.width, c.channels}, dtype, 1, -4, 4);
      std::vector<double> expected(c.batch * c.pooled_height * c.pooled_width * c.channels);
      ForEachShare(c, [&](int64_t pixel, int64_t cell, double share) {
        expected[cell] += share * At(x, pixel) * Phi(At(x, pixel));
      });
      const Tensor y = ops::GeluPool(x, c.pooled_height, c.pooled_width);
      EXPECT_EQ(y.shape(), Shape({c.batch, c.pooled_height, c.pooled_width, c.channels}));
      EXPECT_EQ(y.dtype(), DType::kF32);
      ExpectClose(y, expected, 2e-6);
    }
  }
}

TEST_P(GeluPool, BackwardMatchesDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Case& c : kCases) {
      const Tensor x = RandomTensor({c.batch, c.height, c.width, c.channels}, dtype, 1, -4, 4);
      const Tensor dy =
          RandomTensor({c.batch, c.pooled_height, c.pooled_width, c.channels}, DType::kF32, 2);
      std::vector<double> expected(x.numel());
      ForEachShare(c, [&](int64_t pixel, int64_t cell, double share) {
        expected[pixel] += share * At(dy, cell) * GeluDerivative(At(x, pixel));
      });
      // GELU is less exact where bf16 rounds anyway.
      ExpectClose(ops::GeluPoolBackward(dy, x), expected, dtype == DType::kF32 ? 2e-6 : 2e-4);
    }
  }
}

TEST_P(GeluPool, EmptyBatchesGiveEmptyMaps) {
  const Tensor x = Tensor::Empty({0, 4, 4, 3}, DType::kF32);
  const Tensor y = ops::GeluPool(x, 2, 2);
  EXPECT_EQ(y.numel(), 0);
  EXPECT_EQ(ops::GeluPoolBackward(y, x).numel(), 0);
}

INSTANTIATE_ON_EVERY_TARGET(GeluPool);

}  // namespace
}  // namespace tessera
