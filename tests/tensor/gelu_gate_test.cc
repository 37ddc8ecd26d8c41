#include "tensor/ops/gelu_gate/gelu_gate.h"

#include <numbers>

#include "tests/op_testing.h"

namespace tessera {
namespace {

double Phi(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

double GeluDerivative(double x) {
  return Phi(x) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
}

// GELU is less exact where bf16 rounds anyway.
double Tolerance(DType dtype) { return dtype == DType::kF32 ? 4e-6 : 2e-4; }

class GeluGate : public OnEveryTarget {};

TEST_P(GeluGate, MatchesDoublePrecision) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {0, 1, 3, 7, 17, 96, 40001}) {
      const Tensor x = RandomTensor({n}, dtype, 1, -6, 6);
      const Tensor gate = RandomTensor({n}, dtype, 2, -2, 2);
      std::vector<double> expected = ToDouble(x);
      for (int64_t i = 0; i < n; ++i) expected[i] *= Phi(expected[i]) * At(gate, i);
      const Tensor y = Tensor::Empty({n}, dtype);
      ops::GeluGateTo(x, gate, y);
      ExpectClose(y, expected, Tolerance(dtype));
      ops::GeluGateTo(x, gate, x);
      ExpectClose(x, expected, Tolerance(dtype));
    }
  }
}

TEST_P(GeluGate, BackwardLeavesGradientsAndTheOutputInPlace) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {0, 1, 7, 96, 40001}) {
      const Tensor dy = RandomTensor({n}, dtype, 1), x = RandomTensor({n}, dtype, 2, -6, 6);
      const Tensor gate = RandomTensor({n}, dtype, 3, -2, 2);
      std::vector<double> y(n), dx(n), dgate(n);
      for (int64_t i = 0; i < n; ++i) {
        const double active = At(x, i) * Phi(At(x, i));
        y[i] = active * At(gate, i);
        dx[i] = At(dy, i) * At(gate, i) * GeluDerivative(At(x, i));
        dgate[i] = At(dy, i) * active;
      }
      ops::GeluGateBackwardInPlace(dy, x, gate);
      ExpectClose(dy, y, Tolerance(dtype));
      ExpectClose(x, dx, Tolerance(dtype));
      ExpectClose(gate, dgate, Tolerance(dtype));
    }
  }
}

INSTANTIATE_ON_EVERY_TARGET(GeluGate);

TEST(GeluGateDeathTest, WrongShapesAreNamed) {
  const Tensor x = Tensor::Zeros({2, 3}, DType::kF32), gate = Tensor::Zeros({2, 2}, DType::kF32);
  EXPECT_DEATH(ops::GeluGateTo(x, gate, x), "x f32\\[2, 3\\], gate f32\\[2, 2\\]");
}

}  // namespace
}  // namespace tessera
