#include "tensor/ops/conv2d/conv2d.h"

#include <gtest/gtest.h>

#include <vector>

#include "tensor/ops/cast/cast.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

struct Case {
  Shape x, weight;
  Conv2dGeometry geometry;
  DType dtype;
};

// Calls fn(index of x, index of weight, index of y) for every product of the convolution.
template <typename Fn>
void ForEachProduct(const Case& c, const Shape& y, Fn fn) {
  const Shape& x = c.x;
  const Shape& w = c.weight;
  for (int64_t b = 0; b < y[0]; ++b)
    for (int64_t oh = 0; oh < y[1]; ++oh)
      for (int64_t ow = 0; ow < y[2]; ++ow)
        for (int64_t o = 0; o < y[3]; ++o)
          for (int64_t i = 0; i < x[3]; ++i)
            for (int64_t kh = 0; kh < w[2]; ++kh)
              for (int64_t kw = 0; kw < w[3]; ++kw) {
                const int64_t h = oh * c.geometry.stride + kh - c.geometry.pad_top;
                const int64_t v = ow * c.geometry.stride + kw - c.geometry.pad_left;
                if (h < 0 || h >= x[1] || v < 0 || v >= x[2]) continue;
                fn(((b * x[1] + h) * x[2] + v) * x[3] + i, ((o * x[3] + i) * w[2] + kh) * w[3] + kw,
                   ((b * y[1] + oh) * y[2] + ow) * y[3] + o);
              }
}

class Conv2d : public testing::TestWithParam<Case> {};

TEST_P(Conv2d, ForwardAndGradientsMatchDoublePrecision) {
  const Case& c = GetParam();
  const Tensor x = RandomTensor(c.x, c.dtype, 1);
  // Values that bf16 holds exactly, so that only the summation rounds.
  const Tensor weight =
      ops::Cast(ops::Cast(RandomTensor(c.weight, DType::kF32, 2), DType::kBF16), DType::kF32);
  const Tensor bias = RandomTensor({c.weight[0]}, DType::kF32, 3);
  const Tensor y = ops::Conv2d(x, weight, bias, c.geometry, DType::kF32);
  const Tensor dy = RandomTensor(y.shape(), c.dtype, 4);
  const Tensor dx = ops::Conv2dGradInput(dy, weight, c.x, DType::kF32, c.geometry);
  const Tensor dw = RandomTensor(c.weight, DType::kF32, 5);
  const Tensor before = dw.Clone();
  ops::Conv2dGradWeight(dy, x, dw, c.geometry, /*accumulate=*/true);

  const Tensor xf = ops::Cast(x, DType::kF32), dyf = ops::Cast(dy, DType::kF32);
  std::vector<double> y_ref(y.numel()), dx_ref(x.numel(), 0.0), dw_ref(dw.numel());
  for (int64_t i = 0; i < y.numel(); ++i) y_ref[i] = bias.data<float>()[i % y.dim(3)];
  for (int64_t i = 0; i < dw.numel(); ++i) dw_ref[i] = before.data<float>()[i];
  ForEachProduct(c, y.shape(), [&](int64_t xi, int64_t wi, int64_t yi) {
    const double xv = xf.data<float>()[xi], wv = weight.data<float>()[wi];
    const double dyv = dyf.data<float>()[yi];
    y_ref[yi] += xv * wv;
    dx_ref[xi] += dyv * wv;
    dw_ref[wi] += dyv * xv;
  });
  for (int64_t i = 0; i < y.numel(); ++i) ASSERT_NEAR(y.data<float>()[i], y_ref[i], 5e-5) << i;
  for (int64_t i = 0; i < dx.numel(); ++i) ASSERT_NEAR(dx.data<float>()[i], dx_ref[i], 5e-5) << i;
  for (int64_t i = 0; i < dw.numel(); ++i) ASSERT_NEAR(dw.data<float>()[i], dw_ref[i], 5e-4) << i;
}

// Several parts of patches, the last one short, for any number of threads.
TEST(Conv2dGradWeight, SumsOfManyPixelsHaveTheSameBitsForAnyThreads) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Conv2dGeometry geometry = {1, 3, 3, 3, 3};
    const Tensor x = RandomTensor({3, 61, 67, 20}, dtype, 1);
    const Tensor dy = RandomTensor({3, 61, 67, 24}, dtype, 2);
    const Tensor dw = Tensor::Empty({24, 20, 7, 7}, DType::kF32);
    ExpectSameBitsForAnyThreads([&] {
      ops::Conv2dGradWeight(dy, x, dw, geometry, /*accumulate=*/false);
      return std::vector<Tensor>{dw.Clone()};
    });
    // The middle tap sees every pixel at its own place.
    const Tensor xf = ops::Cast(x, DType::kF32), dyf = ops::Cast(dy, DType::kF32);
    double sum = 0;
    for (int64_t p = 0; p < 3 * 61 * 67; ++p) {
      sum += double{xf.data<float>()[p * 20 + 5]} * dyf.data<float>()[p * 24 + 7];
    }
    EXPECT_NEAR(dw.data<float>()[(7 * 20 + 5) * 49 + 24], sum, 2e-3);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Geometries, Conv2d,
    testing::Values(Case{{2, 9, 13, 3}, {8, 3, 7, 7}, {4, 3, 3, 5, 6}, DType::kF32},
                    Case{{2, 5, 6, 8}, {16, 8, 2, 2}, {2, 0, 0, 1, 0}, DType::kF32},
                    Case{{1, 7, 5, 12}, {24, 12, 3, 3}, {2, 1, 1, 1, 1}, DType::kF32},
                    Case{{2, 9, 13, 3}, {8, 3, 7, 7}, {4, 3, 3, 5, 6}, DType::kBF16},
                    Case{{2, 5, 6, 8}, {16, 8, 2, 2}, {2, 0, 0, 1, 0}, DType::kBF16}));

}  // namespace
}  // namespace tessera
