#include "tensor/ops/depthwise_conv/depthwise_conv.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

struct Case {
  int64_t batch, height, width, channels;
  Shape shape() const { return {batch, height, width, channels}; }
};

constexpr Case kCases[] = {{1, 1, 1, 1},  {2, 1, 5, 3},   {1, 5, 1, 7},   {2, 2, 4, 17},
                           {1, 7, 7, 96}, {2, 9, 6, 16},  {3, 3, 13, 40}, {1, 8, 9, 8},
                           {1, 2, 2, 5},  {2, 57, 14, 33}};

// Calls fn(pixel, input pixel, tap) for the 9 taps of every pixel that lie inside the map.
template <typename Fn>
void ForEachTap(const Case& c, const Fn& fn) {
  for (int64_t p = 0; p < c.batch * c.height * c.width; ++p) {
    const int64_t x = p % c.width, y = p / c.width % c.height;
    for (int64_t t = 0; t < 9; ++t) {
      const int64_t in_x = x + t % 3 - 1, in_y = y + t / 3 - 1;
      if (in_x < 0 || in_x >= c.width || in_y < 0 || in_y >= c.height) continue;
      fn(p, p + (in_y - y) * c.width + in_x - x, t);
    }
  }
}

class DepthwiseConv : public OnEveryTarget {};

TEST_P(DepthwiseConv, ForwardMatchesDoublePrecision) {
  for (const Case& c : kCases) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const int64_t n = c.channels;
      const Tensor x = RandomTensor(c.shape(), dtype, 1);
      const Tensor weight = RandomTensor({n, 1, 3, 3}, DType::kF32, 2);
      const Tensor bias = RandomTensor({n}, DType::kF32, 3);
      std::vector<double> y(x.numel());
      ForEachTap(c, [&](int64_t out, int64_t in, int64_t tap) {
        for (int64_t k = 0; k < n; ++k)
          y[out * n + k] += At(x, in * n + k) * At(weight, k * 9 + tap);
      });
      ExpectClose(ops::DepthwiseConv(x, weight, Tensor(), false), y, 2e-6);
      for (int64_t i = 0; i < x.numel(); ++i) y[i] += At(bias, i % n) + At(x, i);
      ExpectClose(ops::DepthwiseConv(x, weight, bias, true), y, 2e-6);
    }
  }
}

TEST_P(DepthwiseConv, InputGradientMatchesDoublePrecision) {
  for (const Case& c : kCases) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const int64_t n = c.channels;
      const Tensor dy = RandomTensor(c.shape(), dtype, 1);
      const Tensor weight = RandomTensor({n, 1, 3, 3}, DType::kF32, 2);
      std::vector<double> dx(dy.numel());
      ForEachTap(c, [&](int64_t out, int64_t in, int64_t tap) {
        for (int64_t k = 0; k < n; ++k) {
          dx[in * n + k] += At(dy, out * n + k) * At(weight, k * 9 + tap);
        }
      });
      const Tensor overwritten = Tensor::Empty(c.shape(), dtype);
      ops::DepthwiseConvGradInput(dy, weight, false, overwritten, false);
      ExpectClose(overwritten, dx, 2e-6);
      const Tensor accumulated = RandomTensor(c.shape(), dtype, 3);
      for (int64_t i = 0; i < dy.numel(); ++i) dx[i] += At(dy, i) + At(accumulated, i);
      ops::DepthwiseConvGradInput(dy, weight, true, accumulated, true);
      ExpectClose(accumulated, dx, 2e-6);
    }
  }
}

TEST_P(DepthwiseConv, ParameterGradientsMatchDoublePrecision) {
  for (const Case& c : kCases) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const int64_t n = c.channels;
      const Tensor x = RandomTensor(c.shape(), dtype, 1);
      const Tensor dy = RandomTensor(c.shape(), dtype, 2);
      std::vector<double> dweight(n * 9), dbias(n);
      ForEachTap(c, [&](int64_t out, int64_t in, int64_t tap) {
        for (int64_t k = 0; k < n; ++k)
          dweight[k * 9 + tap] += At(dy, out * n + k) * At(x, in * n + k);
      });
      for (int64_t i = 0; i < dy.numel(); ++i) dbias[i % n] += At(dy, i);
      // The rounding of a sum over all pixels.
      const double tolerance = 2e-6 * std::sqrt(c.batch * c.height * c.width);
      ops::DepthwiseConvGradients gradients{Tensor::Empty({n, 1, 3, 3}, DType::kF32),
                                            Tensor::Empty({n}, DType::kF32)};
      ops::DepthwiseConvGradWeight(dy, x, gradients);
      ExpectClose(gradients.dweight, dweight, tolerance);
      ExpectClose(gradients.dbias, dbias, tolerance);
      gradients.accumulate_dweight = gradients.accumulate_dbias = true;
      for (double& d : dweight) d *= 2;
      for (double& d : dbias) d *= 2;
      ops::DepthwiseConvGradWeight(dy, x, gradients);
      ExpectClose(gradients.dweight, dweight, tolerance);
      ExpectClose(gradients.dbias, dbias, tolerance);
    }
  }
}

TEST_P(DepthwiseConv, EmptyBatchGivesZeroParameterGradients) {
  const Tensor x = Tensor::Empty({0, 4, 4, 3}, DType::kF32);
  const Tensor weight = RandomTensor({3, 1, 3, 3}, DType::kF32, 1);
  EXPECT_EQ(ops::DepthwiseConv(x, weight, Tensor(), true).shape(), x.shape());
  const ops::DepthwiseConvGradients gradients{weight, Tensor::Empty({3}, DType::kF32)};
  ops::DepthwiseConvGradWeight(x, x, gradients);
  ExpectClose(gradients.dweight, std::vector<double>(27), 0);
  ExpectClose(gradients.dbias, std::vector<double>(3), 0);
}

TEST_P(DepthwiseConv, HasTheSameBitsForAnyNumberOfThreads) {
  const Tensor x = RandomTensor({3, 29, 27, 48}, DType::kF32, 1);
  const Tensor dy = RandomTensor(x.shape(), DType::kF32, 2);
  const Tensor weight = RandomTensor({48, 1, 3, 3}, DType::kF32, 3);
  ExpectSameBitsForAnyThreads([&] {
    const ops::DepthwiseConvGradients gradients{Tensor::Empty(weight.shape(), DType::kF32),
                                                Tensor::Empty({48}, DType::kF32)};
    ops::DepthwiseConvGradWeight(dy, x, gradients);
    return std::vector<Tensor>{ops::DepthwiseConv(x, weight, Tensor(), true), gradients.dweight,
                               gradients.dbias};
  });
}

INSTANTIATE_ON_EVERY_TARGET(DepthwiseConv);

}  // namespace
}  // namespace tessera
