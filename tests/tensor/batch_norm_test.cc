#include "tensor/ops/batch_norm/batch_norm.h"

#include <array>

#include "tests/op_testing.h"

namespace tessera {
namespace {

constexpr float kEps = 1e-3f;
constexpr Activation kActivations[] = {Activation::kNone, Activation::kGelu, Activation::kGeluTanh,
                                       Activation::kSilu};

double Activated(Activation activation, double z) {
  switch (activation) {
    case Activation::kNone:
      return z;
    case Activation::kGelu:
      return 0.5 * z * std::erfc(-z / std::sqrt(2.0));
    case Activation::kGeluTanh:
      return 0.5 * z * (1 + std::tanh(std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
    case Activation::kSilu:
      return z / (1 + std::exp(-z));
    default:
      return NAN;
  }
}

double Derivative(Activation activation, double z) {
  return (Activated(activation, z + 1e-5) - Activated(activation, z - 1e-5)) / 2e-5;
}

// Batch norm in double, for x [rows, channels].
struct Reference {
  Reference(const Tensor& x, const Tensor& gamma, const Tensor& beta, Activation activation)
      : x(ToDouble(x)), gamma(ToDouble(gamma)), beta(ToDouble(beta)), activation(activation) {
    channels = static_cast<int64_t>(this->gamma.size());
    rows = x.numel() / channels;
    mean.resize(channels);
    variance.resize(channels);
    for (int64_t i = 0; i < x.numel(); ++i) mean[i % channels] += this->x[i] / Rows();
    for (int64_t i = 0; i < x.numel(); ++i) {
      const double d = this->x[i] - mean[i % channels];
      variance[i % channels] += d * d / Rows();
    }
  }
  double Rows() const { return static_cast<double>(rows); }
  double Rstd(int64_t c) const { return 1 / std::sqrt(variance[c] + kEps); }
  double XHat(int64_t i) const { return (x[i] - mean[i % channels]) * Rstd(i % channels); }
  double Z(int64_t i) const { return XHat(i) * gamma[i % channels] + beta[i % channels]; }

  std::vector<double> Forward() const {
    std::vector<double> y(x.size());
    for (size_t i = 0; i < y.size(); ++i) y[i] = Activated(activation, Z(static_cast<int64_t>(i)));
    return y;
  }
  // Sums of g, then of g x_hat.
  std::vector<double> GradSums(const std::vector<double>& dy) const {
    std::vector<double> sums(2 * channels);
    for (int64_t i = 0; i < rows * channels; ++i) {
      const double g = dy[i] * Derivative(activation, Z(i));
      sums[i % channels] += g;
      sums[channels + i % channels] += g * XHat(i);
    }
    return sums;
  }
  std::vector<double> GradInput(const std::vector<double>& dy, bool of_batch) const {
    const std::vector<double> sums = GradSums(dy);
    std::vector<double> dx(x.size());
    for (int64_t i = 0; i < rows * channels; ++i) {
      const int64_t c = i % channels;
      const double common = of_batch ? (sums[c] + XHat(i) * sums[channels + c]) / Rows() : 0.0;
      dx[i] = gamma[c] * Rstd(c) * (dy[i] * Derivative(activation, Z(i)) - common);
    }
    return dx;
  }

  std::vector<double> x, gamma, beta, mean, variance;
  Activation activation;
  int64_t rows, channels;
};

// Random x [rows, channels] whose channels have means and scales of their own.
Tensor Rows(int64_t rows, int64_t channels, DType dtype) {
  const Tensor x = RandomTensor({rows, channels}, dtype, 1, -2, 2);
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double c = static_cast<double>(i % channels);
    Set(x, i, At(x, i) * (1 + 0.1 * c) + 0.3 * (c - 2));
  }
  return x;
}

ops::RunningStatistics Running(int64_t channels) {
  return {RandomTensor({channels}, DType::kF32, 5), RandomTensor({channels}, DType::kF32, 6, 1, 2)};
}

ops::BatchNormTransform TransformOf(const Tensor& x, Activation activation) {
  const int64_t channels = x.dim(-1), rows = x.numel() / channels;
  return {.statistics =
              ops::BatchNormStatisticsOf(ops::BatchNormSums(x), rows, kEps, Running(channels), 0.0),
          .gamma = RandomTensor({channels}, DType::kF32, 2, 0.5, 1.5),
          .beta = RandomTensor({channels}, DType::kF32, 3),
          .activation = activation};
}

class BatchNorm : public OnEveryTarget {};

TEST_P(BatchNorm, StatisticsMatchDoublePrecisionAndMoveTheRunningOnes) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t channels : {1, 3, 17, 96}) {
      for (const int64_t rows : {1, 2, 9, 4013}) {
        const Tensor x = Rows(rows, channels, dtype);
        const ops::RunningStatistics running = Running(channels);
        const Tensor one = Tensor::Zeros({channels}, DType::kF32);
        const Reference expected(x, one, one, Activation::kNone);
        std::vector<double> rstd(channels), mean = ToDouble(running.mean),
                                            variance = ToDouble(running.variance);
        const double unbiased = rows == 1 ? 1.0 : expected.Rows() / (expected.Rows() - 1);
        for (int64_t c = 0; c < channels; ++c) {
          rstd[c] = expected.Rstd(c);
          mean[c] = 0.9 * mean[c] + 0.1 * expected.mean[c];
          variance[c] = 0.9 * variance[c] + 0.1 * expected.variance[c] * unbiased;
        }
        const auto statistics =
            ops::BatchNormStatisticsOf(ops::BatchNormSums(x), rows, kEps, running, 0.1);
        ExpectClose(statistics.mean, expected.mean, 1e-6);
        ExpectClose(statistics.rstd, rstd, 2e-6);
        ExpectClose(running.mean, mean, 1e-6);
        ExpectClose(running.variance, variance, 2e-6);
      }
    }
  }
}

TEST_P(BatchNorm, ALargeMeanDoesNotDrownTheVariance) {
  const Tensor x = RandomTensor({5000, 3}, DType::kF32, 1, 1000, 1001);
  const Tensor one = Tensor::Zeros({3}, DType::kF32);
  const Reference expected(x, one, one, Activation::kNone);
  const auto statistics =
      ops::BatchNormStatisticsOf(ops::BatchNormSums(x), 5000, kEps, Running(3), 0.0);
  for (int64_t c = 0; c < 3; ++c) {
    EXPECT_NEAR(At(statistics.rstd, c), expected.Rstd(c), 1e-4 * expected.Rstd(c));
  }
}

TEST_P(BatchNorm, SumsOfPartsAddUpToThoseOfTheWhole) {
  const Tensor x = Rows(101, 7, DType::kF32);
  const Tensor whole = ops::BatchNormSums(x), a = ops::BatchNormSums(x.Slice(0, 40)),
               b = ops::BatchNormSums(x.Slice(40, 101));
  for (int64_t i = 0; i < 14; ++i) {
    const double sum = a.data<double>()[i] + b.data<double>()[i];
    EXPECT_NEAR(sum, whole.data<double>()[i], 1e-5 * (1 + std::abs(sum)));
  }
}

TEST_P(BatchNorm, RunningStatisticsNormaliseWithoutTheBatch) {
  const ops::RunningStatistics running = Running(5);
  const auto statistics = ops::BatchNormRunningStatistics(running, kEps);
  std::vector<double> rstd(5);
  for (int64_t c = 0; c < 5; ++c) rstd[c] = 1 / std::sqrt(At(running.variance, c) + kEps);
  ExpectClose(statistics.mean, ToDouble(running.mean), 0);
  ExpectClose(statistics.rstd, rstd, 1e-6);
}

TEST_P(BatchNorm, ForwardAndBackwardMatchDoublePrecision) {
  for (const auto& [in, out] : std::vector<std::pair<DType, DType>>{
           {DType::kF32, DType::kF32}, {DType::kF32, DType::kBF16}, {DType::kBF16, DType::kBF16}}) {
    for (const Activation activation : kActivations) {
      for (const int64_t channels : {1, 5, 16, 33}) {
        for (const int64_t rows : {2, 11, 1207}) {
          const Tensor x = Rows(rows, channels, in);
          const ops::BatchNormTransform transform = TransformOf(x, activation);
          const Reference expected(x, transform.gamma, transform.beta, activation);
          ExpectClose(ops::BatchNorm(x, transform, {}, out), expected.Forward(), 2e-5);

          const Tensor dy = RandomTensor(x.shape(), out, 4);
          const Tensor sums = ops::BatchNormGradSums(dy, x, transform);
          const std::vector<double> grad_sums = expected.GradSums(ToDouble(dy));
          ExpectClose(sums, grad_sums, 2e-5 * std::sqrt(rows));
          const Tensor dx = Tensor::Empty(x.shape(), in);
          ops::BatchNormGradInput(dy, x, transform, {}, sums, rows, dx, false);
          std::vector<double> grad = expected.GradInput(ToDouble(dy), true);
          ExpectClose(dx, grad, 1e-4);
          const Tensor more = RandomTensor(x.shape(), in, 5);
          for (int64_t i = 0; i < x.numel(); ++i) grad[i] += At(more, i);
          ops::BatchNormGradInput(dy, x, transform, {}, sums, rows, more, true);
          ExpectClose(more, grad, 1e-4);
          ops::BatchNormGradInput(dy, x, transform, {}, Tensor(), 0, dx, false);
          ExpectClose(dx, expected.GradInput(ToDouble(dy), false), 1e-4);
        }
      }
    }
  }
}

// With a gate per image and channel, all against the same sums and gradients without one.
TEST_P(BatchNorm, GatesScaleEachImageAndTheirGradientsAddUp) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [images, pixels, channels] :
         std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {3, 9, 17}, {2, 1111, 33}, {5, 16, 8}}) {
      const Tensor x =
          Rows(images * pixels, channels, dtype).Reshape({images, 1, pixels, channels});
      const Tensor dy = RandomTensor(x.shape(), dtype, 4);
      const ops::BatchNormGate gate = {RandomTensor({images, channels}, DType::kF32, 7),
                                       RandomTensor({images, channels}, DType::kF32, 8)};
      const ops::BatchNormTransform transform = TransformOf(x, Activation::kGeluTanh);
      const Reference expected(x, transform.gamma, transform.beta, Activation::kGeluTanh);
      std::vector<double> a = expected.Forward(), y = a, da(a.size());
      std::vector<double> means(images * channels), dgate(images * channels);
      for (int64_t i = 0; i < x.numel(); ++i) {
        const int64_t of = i / (pixels * channels) * channels + i % channels;
        y[i] *= At(gate.gate, of);
        da[i] = At(dy, i) * At(gate.gate, of) + At(gate.dmeans, of) / static_cast<double>(pixels);
        means[of] += a[i] / static_cast<double>(pixels);
        dgate[of] += a[i] * At(dy, i);
      }
      ExpectClose(ops::BatchNorm(x, transform, gate, dtype), y, 2e-5);
      ExpectClose(ops::BatchNormPool(x, transform), means, 2e-5);
      const Tensor gate_sums = ops::BatchNormGateSums(dy, x, transform);
      ExpectClose(gate_sums.Slice(0, 1), dgate, 2e-5 * std::sqrt(pixels));
      const Tensor sums = ops::BatchNormSumsOfGated(gate_sums, gate, pixels);
      ExpectClose(sums, expected.GradSums(da), 2e-5 * std::sqrt(images * pixels));
      const Tensor dx = Tensor::Empty(x.shape(), dtype);
      ops::BatchNormGradInput(dy, x, transform, gate, sums, images * pixels, dx, false);
      ExpectClose(dx, expected.GradInput(da, true), 1e-4);
    }
  }
}

TEST_P(BatchNorm, NoRowsGiveZeroSums) {
  const Tensor x = Tensor::Empty({0, 3}, DType::kF32);
  for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(ops::BatchNormSums(x).data<double>()[i], 0);
  const ops::BatchNormTransform transform = {
      .statistics = ops::BatchNormRunningStatistics(Running(3), kEps),
      .gamma = RandomTensor({3}, DType::kF32, 1),
      .beta = RandomTensor({3}, DType::kF32, 2)};
  EXPECT_EQ(ops::BatchNorm(x, transform, {}, DType::kBF16).numel(), 0);
  ExpectClose(ops::BatchNormGradSums(x, x, transform), std::vector<double>(6), 0);
}

TEST_P(BatchNorm, HasTheSameBitsForAnyNumberOfThreads) {
  const Tensor x = Rows(3001, 40, DType::kF32), dy = RandomTensor(x.shape(), DType::kF32, 4);
  ExpectSameBitsForAnyThreads([&] {
    const ops::BatchNormTransform transform = TransformOf(x, Activation::kGeluTanh);
    const Tensor sums = ops::BatchNormGradSums(dy, x, transform);
    const Tensor dx = Tensor::Empty(x.shape(), DType::kF32);
    ops::BatchNormGradInput(dy, x, transform, {}, sums, 3001, dx, false);
    const Tensor maps = x.Slice(0, 3000).Reshape({3, 10, 100, 40});
    const Tensor dmaps = dy.Slice(0, 3000).Reshape(maps.shape());
    return std::vector<Tensor>{ops::BatchNormPool(maps, transform),
                               ops::BatchNormGateSums(dmaps, maps, transform),
                               ops::BatchNormSums(x),
                               ops::BatchNorm(x, transform, {}, DType::kF32),
                               sums,
                               dx};
  });
}

TEST(BatchNormDeathTest, NoRowsHaveNoStatistics) {
  EXPECT_DEATH(
      ops::BatchNormStatisticsOf(Tensor::Zeros({2, 3}, DType::kF64), 0, kEps, Running(3), 0.1),
      "statistics of 0 rows");
}

INSTANTIATE_ON_EVERY_TARGET(BatchNorm);

}  // namespace
}  // namespace tessera
