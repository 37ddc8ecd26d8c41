#include "tensor/ops/depthwise_conv/depthwise_conv.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

struct Case {
  Shape x;
  int64_t kernel_size;
  Conv2dGeometry geometry;

  DepthwiseConvShape shape() const { return DepthwiseConvShapeOf(x, kernel_size, geometry); }
  Shape y() const { return {x[0], shape().out_height, shape().out_width, x[3]}; }
  Shape weight() const { return {x[3], 1, kernel_size, kernel_size}; }
};

// Every size with every kernel: padding on all sides, none before and one after, none at all.
std::vector<Case> Cases() {
  const Shape sizes[] = {{1, 1, 1, 1},  {2, 1, 5, 3},   {1, 5, 1, 7},   {2, 2, 4, 17},
                         {1, 7, 7, 96}, {2, 9, 6, 16},  {3, 3, 13, 40}, {1, 8, 9, 8},
                         {1, 2, 2, 5},  {2, 37, 14, 33}};
  std::vector<Case> cases;
  for (const Shape& x : sizes) {
    for (const int64_t k : {3, 5, 7}) {
      cases.push_back({x, k, Conv2dGeometry::Centred(k)});
      cases.push_back({x, k, Conv2dGeometry::Centred(k, 2)});
      const Conv2dGeometry after = {2, k / 2 - 1, k / 2 - 1, k / 2, k / 2};
      const Conv2dGeometry uneven = {1, 0, k / 2, 1, 0};
      for (const Conv2dGeometry& g : {after, uneven, Conv2dGeometry{1}, Conv2dGeometry{2}}) {
        const bool fits =
            x[1] + g.pad_top + g.pad_bottom >= k && x[2] + g.pad_left + g.pad_right >= k;
        if (fits) cases.push_back({x, k, g});
      }
    }
  }
  return cases;
}

// Calls fn(output pixel, input pixel, tap) for the taps of every output that lie inside the map.
template <typename Fn>
void ForEachTap(const Case& c, const Fn& fn) {
  const DepthwiseConvShape s = c.shape();
  const Conv2dGeometry& g = c.geometry;
  for (int64_t out = 0; out < s.batch * s.out_height * s.out_width; ++out) {
    const int64_t x = out % s.out_width, row = out / s.out_width;
    for (int64_t t = 0; t < s.taps(); ++t) {
      const int64_t in_x = x * g.stride - g.pad_left + t % s.kernel_size;
      const int64_t in_y = row % s.out_height * g.stride - g.pad_top + t / s.kernel_size;
      if (in_x < 0 || in_x >= s.width || in_y < 0 || in_y >= s.height) continue;
      fn(out, (row / s.out_height * s.height + in_y) * s.width + in_x, t);
    }
  }
}

constexpr DType kDTypes[] = {DType::kF32, DType::kBF16};

class DepthwiseConv : public OnEveryTarget {};

TEST_P(DepthwiseConv, ForwardMatchesDoublePrecision) {
  for (const Case& c : Cases()) {
    for (const DType dtype : kDTypes) {
      const int64_t n = c.x[3], taps = c.shape().taps();
      const Tensor x = RandomTensor(c.x, dtype, 1);
      const Tensor weight = RandomTensor(c.weight(), DType::kF32, 2);
      const Tensor bias = RandomTensor({n}, DType::kF32, 3);
      std::vector<double> y(c.y().numel());
      ForEachTap(c, [&](int64_t out, int64_t in, int64_t tap) {
        for (int64_t k = 0; k < n; ++k) {
          y[out * n + k] += At(x, in * n + k) * At(weight, k * taps + tap);
        }
      });
      const Tensor plain = ops::DepthwiseConv(x, weight, Tensor(), c.geometry, false);
      EXPECT_EQ(plain.shape(), c.y());
      ExpectClose(plain, y, 3e-6);
      if (c.geometry != Conv2dGeometry::Centred(c.kernel_size)) continue;
      for (int64_t i = 0; i < x.numel(); ++i) y[i] += At(bias, i % n) + At(x, i);
      ExpectClose(ops::DepthwiseConv(x, weight, bias, c.geometry, true), y, 3e-6);
    }
  }
}

TEST_P(DepthwiseConv, InputGradientMatchesDoublePrecision) {
  for (const Case& c : Cases()) {
    for (const DType dtype : kDTypes) {
      const int64_t n = c.x[3], taps = c.shape().taps();
      const Tensor dy = RandomTensor(c.y(), dtype, 1);
      const Tensor weight = RandomTensor(c.weight(), DType::kF32, 2);
      std::vector<double> dx(c.x.numel());
      ForEachTap(c, [&](int64_t out, int64_t in, int64_t tap) {
        for (int64_t k = 0; k < n; ++k) {
          dx[in * n + k] += At(dy, out * n + k) * At(weight, k * taps + tap);
        }
      });
      const Tensor overwritten = Tensor::Empty(c.x, dtype);
      ops::DepthwiseConvGradInput(dy, weight, c.geometry, false, overwritten, false);
      ExpectClose(overwritten, dx, 3e-6);
      const bool residual = c.geometry == Conv2dGeometry::Centred(c.kernel_size);
      const Tensor accumulated = RandomTensor(c.x, dtype, 3);
      for (size_t i = 0; i < dx.size(); ++i) {
        dx[i] += At(accumulated, static_cast<int64_t>(i)) +
                 (residual ? At(dy, static_cast<int64_t>(i)) : 0);
      }
      ops::DepthwiseConvGradInput(dy, weight, c.geometry, residual, accumulated, true);
      ExpectClose(accumulated, dx, 3e-6);
    }
  }
}

TEST_P(DepthwiseConv, ParameterGradientsMatchDoublePrecision) {
  for (const Case& c : Cases()) {
    for (const DType dtype : kDTypes) {
      const int64_t n = c.x[3], taps = c.shape().taps();
      const Tensor x = RandomTensor(c.x, dtype, 1);
      const Tensor dy = RandomTensor(c.y(), dtype, 2);
      std::vector<double> dweight(n * taps), dbias(n);
      ForEachTap(c, [&](int64_t out, int64_t in, int64_t tap) {
        for (int64_t k = 0; k < n; ++k) {
          dweight[k * taps + tap] += At(dy, out * n + k) * At(x, in * n + k);
        }
      });
      for (int64_t i = 0; i < dy.numel(); ++i) dbias[i % n] += At(dy, i);
      // The rounding of a sum over all pixels.
      const double tolerance = 2e-6 * std::sqrt(static_cast<double>(dy.numel() / n));
      ops::DepthwiseConvGradients gradients{Tensor::Empty(c.weight(), DType::kF32),
                                            Tensor::Empty({n}, DType::kF32)};
      ops::DepthwiseConvGradWeight(dy, x, c.kernel_size, c.geometry, gradients);
      ExpectClose(gradients.dweight, dweight, tolerance);
      ExpectClose(gradients.dbias, dbias, tolerance);
      gradients.accumulate_dweight = gradients.accumulate_dbias = true;
      for (double& d : dweight) d *= 2;
      for (double& d : dbias) d *= 2;
      ops::DepthwiseConvGradWeight(dy, x, c.kernel_size, c.geometry, gradients);
      ExpectClose(gradients.dweight, dweight, tolerance);
      ExpectClose(gradients.dbias, dbias, tolerance);
    }
  }
}

// The middle third of rows of 3 C channels, as a slice of q, k and v.
TEST_P(DepthwiseConv, TakesASliceOfChannels) {
  constexpr int64_t kChannels = 20, kPixels = 2 * 6 * 7;
  const Shape dense = {2, 6, 7, kChannels}, wide = {2, 6, 7, 3 * kChannels};
  for (const int64_t kernel_size : {3, 5}) {
    const Conv2dGeometry geometry = Conv2dGeometry::Centred(kernel_size);
    const DepthwiseConvShape shape = DepthwiseConvShapeOf(dense, kernel_size, geometry);
    const Tensor x = RandomTensor(dense, DType::kF32, 1), dy = RandomTensor(dense, DType::kF32, 2);
    const Tensor weight = RandomTensor({kChannels, 1, kernel_size, kernel_size}, DType::kF32, 3);
    const Tensor x_wide = RandomTensor(wide, DType::kF32, 4), dx_wide = x_wide.Clone();
    const auto middle = [&](const Tensor& t, int64_t i) -> float& {
      return t.data<float>()[i / kChannels * 3 * kChannels + kChannels + i % kChannels];
    };
    for (int64_t i = 0; i < kPixels * kChannels; ++i) middle(x_wide, i) = x.data<float>()[i];
    const Tensor y = Tensor::Empty(dense, DType::kF32), dx = Tensor::Empty(dense, DType::kF32);
    depthwise_conv(Device::kCpu, DepthwiseConvArgs{.shape = shape,
                                                   .dtype = DType::kF32,
                                                   .x = x_wide.data<float>() + kChannels,
                                                   .x_stride = 3 * kChannels,
                                                   .weight = weight.data<float>(),
                                                   .bias = nullptr,
                                                   .y = y.raw(),
                                                   .y_stride = kChannels,
                                                   .residual = false,
                                                   .accumulate = false});
    ExpectClose(y, ToDouble(ops::DepthwiseConv(x, weight, Tensor(), geometry, false)), 0);
    depthwise_conv_grad_input(Device::kCpu,
                              DepthwiseConvGradInputArgs{.shape = shape,
                                                         .dtype = DType::kF32,
                                                         .dy = dy.raw(),
                                                         .dy_stride = kChannels,
                                                         .weight = weight.data<float>(),
                                                         .dx = dx_wide.data<float>() + kChannels,
                                                         .dx_stride = 3 * kChannels,
                                                         .residual = false,
                                                         .accumulate = false});
    ops::DepthwiseConvGradInput(dy, weight, geometry, false, dx, false);
    const Tensor untouched = RandomTensor(wide, DType::kF32, 4);
    for (int64_t i = 0; i < kPixels * kChannels; ++i) {
      ASSERT_EQ(middle(dx_wide, i), At(dx, i));
      middle(untouched, i) = middle(dx_wide, i);
    }
    EXPECT_EQ(std::memcmp(dx_wide.raw(), untouched.raw(), dx_wide.bytes()), 0);
  }
}

TEST_P(DepthwiseConv, EmptyBatchGivesZeroParameterGradients) {
  const Tensor x = Tensor::Empty({0, 4, 4, 3}, DType::kF32);
  const Tensor weight = RandomTensor({3, 1, 3, 3}, DType::kF32, 1);
  const Conv2dGeometry geometry = Conv2dGeometry::Centred(3);
  EXPECT_EQ(ops::DepthwiseConv(x, weight, Tensor(), geometry, true).shape(), x.shape());
  const ops::DepthwiseConvGradients gradients{weight, Tensor::Empty({3}, DType::kF32)};
  ops::DepthwiseConvGradWeight(x, x, 3, geometry, gradients);
  ExpectClose(gradients.dweight, std::vector<double>(27), 0);
  ExpectClose(gradients.dbias, std::vector<double>(3), 0);
}

TEST_P(DepthwiseConv, HasTheSameBitsForAnyNumberOfThreads) {
  for (const int64_t stride : {1, 2}) {
    for (const int64_t kernel_size : {3, 5}) {
      const Conv2dGeometry geometry = Conv2dGeometry::Centred(kernel_size, stride);
      const Tensor x = RandomTensor({3, 29, 27, 48}, DType::kF32, 1);
      const Tensor weight = RandomTensor({48, 1, kernel_size, kernel_size}, DType::kF32, 3);
      const Tensor dy = ops::DepthwiseConv(x, weight, Tensor(), geometry, stride == 1);
      ExpectSameBitsForAnyThreads([&] {
        const ops::DepthwiseConvGradients gradients{Tensor::Empty(weight.shape(), DType::kF32),
                                                    Tensor::Empty({48}, DType::kF32)};
        ops::DepthwiseConvGradWeight(dy, x, kernel_size, geometry, gradients);
        const Tensor dx = Tensor::Empty(x.shape(), DType::kF32);
        ops::DepthwiseConvGradInput(dy, weight, geometry, stride == 1, dx, false);
        return std::vector<Tensor>{ops::DepthwiseConv(x, weight, Tensor(), geometry, stride == 1),
                                   dx, gradients.dweight, gradients.dbias};
      });
    }
  }
}

using DepthwiseConvDeathTest = DepthwiseConv;

TEST_P(DepthwiseConvDeathTest, ImpossibleKernelsAreNamed) {
  const Tensor x = Tensor::Zeros({1, 4, 4, 2}, DType::kF32);
  const Tensor even = Tensor::Zeros({2, 1, 4, 4}, DType::kF32);
  EXPECT_DEATH(ops::DepthwiseConv(x, even, Tensor(), {1}, false), "kernel 4, stride 1");
  const Tensor weight = Tensor::Zeros({2, 1, 3, 3}, DType::kF32);
  EXPECT_DEATH(ops::DepthwiseConv(x, weight, Tensor(), Conv2dGeometry::Centred(3, 2), true),
               "stride 1 and padding K / 2");
}

INSTANTIATE_ON_EVERY_TARGET(DepthwiseConv);
INSTANTIATE_ON_EVERY_TARGET(DepthwiseConvDeathTest);

}  // namespace
}  // namespace tessera
