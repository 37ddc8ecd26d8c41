#include "tensor/ops/gelu/gelu.h"

#include <limits>
#include <numbers>

#include "tests/op_testing.h"

namespace tessera {
namespace {

double Phi(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

double Derivative(double x) {
  return Phi(x) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
}

// Absolute errors of the value and the derivative, before rounding.
double ValueError(DType dtype) { return dtype == DType::kF32 ? 4e-7 : 1.6e-5; }
double DerivativeError(DType dtype) { return dtype == DType::kF32 ? 1e-6 : 8e-5; }

class Gelu : public OnEveryTarget {};

TEST_P(Gelu, ForwardMatchesDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {0, 1, 3, 7, 17, 96, 40001}) {
      const Tensor x = RandomTensor({n}, dtype, 1, -7, 7);
      std::vector<double> expected = ToDouble(x);
      for (double& v : expected) v *= Phi(v);
      ExpectClose(ops::Gelu(x), expected, ValueError(dtype));
    }
  }
}

TEST_P(Gelu, ExtremeArgumentsAreExactAndNanGetsThrough) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> values = {0.0f, 1e-30f, 100.0f, -100.0f, kInfinity, -kInfinity, NAN};
  const Tensor x = Tensor::From<float>({7}, values);
  const Tensor y = ops::Gelu(x);
  EXPECT_EQ(At(y, 0), 0);
  EXPECT_NEAR(At(y, 1), 5e-31, 1e-35);
  EXPECT_EQ(At(y, 2), 100);
  EXPECT_EQ(At(y, 3), 0);
  EXPECT_EQ(At(y, 4), kInfinity);
  EXPECT_EQ(At(y, 5), 0);
  EXPECT_TRUE(std::isnan(At(y, 6)));
  const Tensor dx = Tensor::Empty({7}, DType::kF32);
  ops::GeluBackward(Tensor::From<float>({7}, std::vector<float>(7, 1.0f)), x, {.dx = dx});
  EXPECT_NEAR(At(dx, 0), 0.5, 1e-6);
  EXPECT_EQ(At(dx, 4), 1);
  EXPECT_EQ(At(dx, 5), 0);
  EXPECT_TRUE(std::isnan(At(dx, 6)));
}

TEST_P(Gelu, BackwardMatchesDoublePrecisionOverwritingAndAccumulating) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t columns : {1, 3, 7, 17, 96}) {
      for (const int64_t rows : {1, 5, 1203}) {
        const Tensor x = RandomTensor({rows, columns}, dtype, 1, -7, 7);
        const Tensor dy = RandomTensor({rows, columns}, dtype, 2);
        std::vector<double> dx(x.numel()), dbias(columns);
        for (int64_t i = 0; i < x.numel(); ++i) {
          dx[i] = At(dy, i) * Derivative(At(x, i));
          dbias[i % columns] += dx[i];
        }
        const Tensor dx_only = Tensor::Empty(x.shape(), dtype);
        ops::GeluBackward(dy, x, {.dx = dx_only});
        ExpectClose(dx_only, dx, DerivativeError(dtype));
        const Tensor in_place = dy.Clone(), value = x.Clone();
        const Tensor sum = Tensor::Empty({columns}, DType::kF32);
        ops::GeluBackward(in_place, value, {.dx = in_place, .dbias = sum, .y = value});
        EXPECT_EQ(std::memcmp(value.raw(), ops::Gelu(x).raw(), value.bytes()), 0);
        ExpectClose(in_place, dx, DerivativeError(dtype));
        ExpectClose(sum, dbias, DerivativeError(dtype) * std::sqrt(rows));

        const Tensor more_dx = RandomTensor(x.shape(), dtype, 3);
        const Tensor more_sum = RandomTensor({columns}, DType::kF32, 4);
        for (int64_t i = 0; i < x.numel(); ++i) dx[i] += At(more_dx, i);
        for (int64_t c = 0; c < columns; ++c) dbias[c] += At(more_sum, c);
        ops::GeluBackward(
            dy, x,
            {.dx = more_dx, .dbias = more_sum, .accumulate_dx = true, .accumulate_dbias = true});
        ExpectClose(more_dx, dx, DerivativeError(dtype));
        ExpectClose(more_sum, dbias, DerivativeError(dtype) * std::sqrt(rows));
      }
    }
  }
}

TEST_P(Gelu, NoRowsGiveAZeroBiasGradient) {
  const Tensor x = Tensor::Empty({0, 5}, DType::kF32);
  const Tensor dbias = Tensor::Empty({5}, DType::kF32);
  ops::GeluBackward(x, x, {.dx = x, .dbias = dbias});
  ExpectClose(dbias, std::vector<double>(5), 0);
}

TEST_P(Gelu, HasTheSameBitsForAnyNumberOfThreads) {
  const Tensor x = RandomTensor({3001, 96}, DType::kF32, 1, -3, 3);
  const Tensor dy = RandomTensor(x.shape(), DType::kF32, 2);
  ExpectSameBitsForAnyThreads([&] {
    const ops::GeluGradients gradients{.dx = Tensor::Empty(x.shape(), DType::kF32),
                                       .dbias = Tensor::Empty({96}, DType::kF32)};
    ops::GeluBackward(dy, x, gradients);
    return std::vector<Tensor>{ops::Gelu(x), gradients.dx, gradients.dbias};
  });
}

INSTANTIATE_ON_EVERY_TARGET(Gelu);

}  // namespace
}  // namespace tessera
