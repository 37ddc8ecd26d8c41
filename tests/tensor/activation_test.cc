#include "tensor/ops/activation/activation.h"

#include <limits>
#include <numbers>

#include "tests/op_testing.h"

namespace tessera {
namespace {

double Phi(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

constexpr Activation kAll[] = {Activation::kNone, Activation::kGelu, Activation::kGeluTanh,
                               Activation::kSilu, Activation::kRelu, Activation::kSigmoid,
                               Activation::kTanh};

double Value(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return x * Phi(x);
    case Activation::kGeluTanh:
      return 0.5 * x *
             (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kSigmoid:
      return 1 / (1 + std::exp(-x));
    case Activation::kTanh:
      return std::tanh(x);
  }
  return NAN;
}

double Derivative(Activation activation, double x) {
  if (activation == Activation::kRelu) return x > 0 ? 1 : 0;
  constexpr double kStep = 1e-5;  // error below 1e-10
  return (Value(activation, x + kStep) - Value(activation, x - kStep)) / (2 * kStep);
}

Tensor Activated(const Tensor& x, Activation activation) {
  const Tensor y = Tensor::Empty(x.shape(), x.dtype());
  ops::ActivateTo(x, activation, y);
  return y;
}

// Absolute errors of the value and the derivative, before rounding.
double ValueError(DType dtype) { return dtype == DType::kF32 ? 4e-7 : 1.6e-5; }
double DerivativeError(DType dtype) { return dtype == DType::kF32 ? 1e-6 : 8e-5; }

class Activations : public OnEveryTarget {};

TEST_P(Activations, ForwardMatchesDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {0, 1, 3, 7, 17, 96, 40001}) {
      const Tensor x = RandomTensor({n}, dtype, 1, -7, 7);
      for (const Activation activation : kAll) {
        std::vector<double> expected = ToDouble(x);
        for (double& v : expected) v = Value(activation, v);
        ExpectClose(Activated(x, activation), expected, ValueError(dtype));
      }
    }
  }
}

TEST_P(Activations, ExtremeArgumentsAreExactAndNanGetsThrough) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> values = {0.0f, 1e-30f, 100.0f, -100.0f, kInfinity, -kInfinity, NAN};
  const Tensor x = Tensor::From<float>({7}, values);
  for (const Activation activation :
       {Activation::kGelu, Activation::kGeluTanh, Activation::kSilu}) {
    const Tensor y = Activated(x, activation);
    EXPECT_EQ(At(y, 0), 0);
    EXPECT_NEAR(At(y, 1), 5e-31, 1e-35);
    EXPECT_EQ(At(y, 2), 100);
    EXPECT_NEAR(At(y, 3), 0, 1e-34);
    EXPECT_EQ(At(y, 4), kInfinity);
    EXPECT_NEAR(At(y, 5), 0, 1e-34);
    EXPECT_TRUE(std::isnan(At(y, 6)));
    const Tensor dx = Tensor::Empty({7}, DType::kF32);
    ops::ActivateBackward(Tensor::From<float>({7}, std::vector<float>(7, 1.0f)), x, activation,
                          {.dx = dx});
    EXPECT_NEAR(At(dx, 0), 0.5, 1e-6);
    EXPECT_EQ(At(dx, 4), 1);
    EXPECT_NEAR(At(dx, 5), 0, 1e-34);
    EXPECT_TRUE(std::isnan(At(dx, 6)));
  }
  for (const Activation activation : kAll) {
    EXPECT_TRUE(std::isnan(At(Activated(x, activation), 6)));
  }
}

TEST_P(Activations, BackwardMatchesDoublePrecisionOverwritingAndAccumulating) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [rows, columns] :
         std::vector<std::pair<int64_t, int64_t>>{{5, 1}, {1, 3}, {1203, 7}, {5, 17}, {1203, 96}}) {
      for (const Activation activation : kAll) {
        const Tensor x = RandomTensor({rows, columns}, dtype, 1, -7, 7);
        const Tensor dy = RandomTensor({rows, columns}, dtype, 2);
        std::vector<double> dx(x.numel()), dbias(columns);
        for (int64_t i = 0; i < x.numel(); ++i) {
          dx[i] = At(dy, i) * Derivative(activation, At(x, i));
          dbias[i % columns] += dx[i];
        }
        const Tensor dx_only = Tensor::Empty(x.shape(), dtype);
        ops::ActivateBackward(dy, x, activation, {.dx = dx_only});
        ExpectClose(dx_only, dx, DerivativeError(dtype));
        const Tensor in_place = dy.Clone(), value = x.Clone();
        const Tensor sum = Tensor::Empty({columns}, DType::kF32);
        ops::ActivateBackward(in_place, value, activation,
                              {.dx = in_place, .dbias = sum, .y = value});
        EXPECT_EQ(std::memcmp(value.raw(), Activated(x, activation).raw(), value.bytes()), 0);
        ExpectClose(in_place, dx, DerivativeError(dtype));
        ExpectClose(sum, dbias, DerivativeError(dtype) * std::sqrt(rows));

        const Tensor more_dx = RandomTensor(x.shape(), dtype, 3);
        const Tensor more_sum = RandomTensor({columns}, DType::kF32, 4);
        for (int64_t i = 0; i < x.numel(); ++i) dx[i] += At(more_dx, i);
        for (int64_t c = 0; c < columns; ++c) dbias[c] += At(more_sum, c);
        ops::ActivateBackward(
            dy, x, activation,
            {.dx = more_dx, .dbias = more_sum, .accumulate_dx = true, .accumulate_dbias = true});
        ExpectClose(more_dx, dx, DerivativeError(dtype));
        ExpectClose(more_sum, dbias, DerivativeError(dtype) * std::sqrt(rows));
      }
    }
  }
}

TEST_P(Activations, NoRowsGiveAZeroBiasGradient) {
  const Tensor x = Tensor::Empty({0, 5}, DType::kF32);
  const Tensor dbias = Tensor::Empty({5}, DType::kF32);
  ops::ActivateBackward(x, x, Activation::kGelu, {.dx = x, .dbias = dbias});
  ExpectClose(dbias, std::vector<double>(5), 0);
}

TEST_P(Activations, HasTheSameBitsForAnyNumberOfThreads) {
  const Tensor x = RandomTensor({3001, 96}, DType::kF32, 1, -3, 3);
  const Tensor dy = RandomTensor(x.shape(), DType::kF32, 2);
  ExpectSameBitsForAnyThreads([&] {
    const ops::ActivationGradients gradients{.dx = Tensor::Empty(x.shape(), DType::kF32),
                                             .dbias = Tensor::Empty({96}, DType::kF32)};
    ops::ActivateBackward(dy, x, Activation::kGelu, gradients);
    return std::vector<Tensor>{gradients.dx, gradients.dbias};
  });
}

INSTANTIATE_ON_EVERY_TARGET(Activations);

}  // namespace
}  // namespace tessera
