// Checks the gradients of autograd nodes: the tape's against finite differences.
//
//   EXPECT_TRUE(GradientsMatch(
//       [](const std::vector<Tensor>& in) { return Gelu(in[0]); }, {RandomTensor({5, 7}, kF32,
//       1)}));
#ifndef TESSERA_TESTS_GRADCHECK_H_
#define TESSERA_TESTS_GRADCHECK_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "autograd/tape.h"
#include "tensor/ops/cast/cast.h"
#include "tests/op_testing.h"

namespace tessera {

using TensorFn = std::function<Tensor(const std::vector<Tensor>&)>;

// sum of y * coefficients, a node whose gradient with respect to y is the coefficients.
inline Tensor Dot(const Tensor& y, const Tensor& coefficients) {
  double sum = 0;
  for (int64_t i = 0; i < y.numel(); ++i) sum += At(y, i) * At(coefficients, i);
  Tensor loss = Tensor::Empty({}, DType::kF32);
  *loss.data<float>() = static_cast<float>(sum);
  // A copy, since a node may overwrite the gradient that it is handed.
  Record("dot", {&y}, {&loss}, [coefficients, dtype = y.dtype()](GradContext& g) {
    g.Add(0, ops::Cast(coefficients.Clone(), dtype));
  });
  return loss;
}

// Coefficients of a result, the same for each call.
inline Tensor DotCoefficients(const Tensor& y) {
  return RandomTensor(y.shape(), DType::kF32, 987, -1, 1);
}

// Gradients of sum(fn(inputs) * coefficients) with respect to each input, by the tape. Inputs are
// f32; inputs of another dtype are handed to fn as they are and get no gradient.
inline std::vector<Tensor> TapeGradients(const TensorFn& fn, std::vector<Tensor> inputs) {
  std::vector<Tensor> grads(inputs.size());
  Tape tape;
  for (size_t k = 0; k < inputs.size(); ++k) {
    if (!inputs[k].defined() || inputs[k].dtype() != DType::kF32) continue;
    grads[k] = Tensor::Empty(inputs[k].shape(), DType::kF32);
    tape.Watch(inputs[k], grads[k], /*accumulate=*/false);
  }
  const Tensor y = fn(inputs);
  tape.Backward(Dot(y, DotCoefficients(y)));
  return grads;
}

struct GradcheckOptions {
  double step = 1e-2;         // of the central difference
  double tolerance = 2e-3;    // times 1 + |gradient|
  int64_t max_elements = 64;  // of each input that are moved, spread evenly over it
};

// True if the tape's gradients of all f32 inputs agree with central differences; else says which
// element does not. fn's result must be f32: the differences of a rounded result say nothing.
inline testing::AssertionResult GradientsMatch(const TensorFn& fn,
                                               const std::vector<Tensor>& inputs,
                                               const GradcheckOptions& options = {}) {
  const std::vector<Tensor> grads = TapeGradients(fn, inputs);
  for (size_t k = 0; k < inputs.size(); ++k) {
    if (!grads[k].defined()) continue;
    const int64_t n = inputs[k].numel();
    const int64_t stride = std::max<int64_t>(1, n / options.max_elements);
    for (int64_t i = 0; i < n; i += stride) {
      std::vector<Tensor> moved = inputs;
      moved[k] = inputs[k].Clone();
      const double value = At(inputs[k], i);
      Set(moved[k], i, value + options.step);
      const double high = At(moved[k], i);
      const Tensor above = fn(moved).Clone();
      Set(moved[k], i, value - options.step);
      const double low = At(moved[k], i);
      const Tensor below = fn(moved);
      if (above.dtype() != DType::kF32) {
        return testing::AssertionFailure() << "the result is " << Name(above.dtype());
      }
      const Tensor coefficients = DotCoefficients(above);
      double expected = 0;
      for (int64_t j = 0; j < above.numel(); ++j) {
        expected += (At(above, j) - At(below, j)) * At(coefficients, j);
      }
      expected /= high - low;
      const double got = At(grads[k], i);
      if (!(std::abs(got - expected) <= options.tolerance * (1 + std::abs(expected)))) {
        return testing::AssertionFailure()
               << "input " << k << " " << inputs[k].shape() << ", element " << i << ": tape " << got
               << ", finite difference " << expected;
      }
    }
  }
  return testing::AssertionSuccess();
}

// True if two sets of gradients differ by at most `tolerance` of the largest element of each.
inline testing::AssertionResult GradientsAgree(const std::vector<Tensor>& a,
                                               const std::vector<Tensor>& b, double tolerance) {
  for (size_t k = 0; k < a.size(); ++k) {
    if (!a[k].defined() || !b[k].defined()) continue;
    double largest = 0, difference = 0;
    for (int64_t i = 0; i < a[k].numel(); ++i) {
      largest = std::max(largest, std::abs(At(a[k], i)));
      difference = std::max(difference, std::abs(At(a[k], i) - At(b[k], i)));
    }
    if (!(difference <= tolerance * largest)) {
      return testing::AssertionFailure() << "input " << k << " " << a[k].shape() << ": differ by "
                                         << difference << ", largest element " << largest;
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace tessera

#endif  // TESSERA_TESTS_GRADCHECK_H_
