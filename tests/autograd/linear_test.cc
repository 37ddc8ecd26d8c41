#include "autograd/ops/linear.h"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/tape.h"
#include "core/random.h"
#include "tensor/ops/cast/cast.h"

namespace tessera {
namespace {

Tensor Random(const Shape& shape, uint64_t seed) {
  RandomStream random(seed, Purpose::kTest);
  Tensor t = Tensor::Empty(shape, DType::kF32);
  for (int64_t i = 0; i < t.numel(); ++i) {
    t.data<float>()[i] = static_cast<float>(random.Uniform(-1, 1));
  }
  return t;
}

// sum of y * coefficients, whose gradient with respect to y is the coefficients.
Tensor Dot(const Tensor& y, const Tensor& coefficients) {
  Tensor loss = Tensor::Zeros({}, DType::kF32);
  const Tensor values = ops::Cast(y, DType::kF32);
  for (int64_t i = 0; i < y.numel(); ++i) {
    *loss.data<float>() += values.data<float>()[i] * coefficients.data<float>()[i];
  }
  Record("dot", {&y}, {&loss}, [coefficients, dtype = y.dtype()](GradContext& g) {
    g.Add(0, ops::Cast(coefficients, dtype));
  });
  return loss;
}

class LinearGradient : public testing::TestWithParam<DType> {};

TEST_P(LinearGradient, OfInputWeightAndBiasMatchesDoublePrecision) {
  const int64_t rows = 10, in = 7, out = 5;
  Tensor x_f32 = Random({2, 5, in}, 1), w_f32 = Random({out, in}, 2), bias = Random({out}, 3);
  Tensor x = ops::Cast(x_f32, GetParam()), w = ops::Cast(w_f32, GetParam());
  const Tensor dy = ops::Cast(ops::Cast(Random({2, 5, out}, 4), GetParam()), DType::kF32);
  const Tensor dx = Tensor::Empty({2, 5, in}, DType::kF32);
  const Tensor dw = Tensor::Empty({out, in}, DType::kF32);
  const Tensor db = Tensor::Empty({out}, DType::kF32);
  Tape tape;
  tape.Watch(x_f32, dx, false);
  tape.Watch(w_f32, dw, false);
  tape.Watch(bias, db, false);
  Tape::Alias(x_f32, x);
  Tape::Alias(w_f32, w);
  const Tensor y = Linear(x, w, bias, DType::kF32);
  EXPECT_EQ(y.shape(), Shape({2, 5, out}));
  tape.Backward(Dot(y, dy));
  const Tensor xe = ops::Cast(x, DType::kF32), we = ops::Cast(w, DType::kF32);
  for (int64_t k = 0; k < in; ++k) {
    for (int64_t r = 0; r < rows; ++r) {
      double expected = 0;
      for (int64_t j = 0; j < out; ++j) {
        expected += dy.data<float>()[r * out + j] * we.data<float>()[j * in + k];
      }
      ASSERT_NEAR(dx.data<float>()[r * in + k], expected, 1e-5);
    }
    for (int64_t j = 0; j < out; ++j) {
      double expected = 0;
      for (int64_t r = 0; r < rows; ++r) {
        expected += dy.data<float>()[r * out + j] * xe.data<float>()[r * in + k];
      }
      ASSERT_NEAR(dw.data<float>()[j * in + k], expected, 1e-5);
    }
  }
  for (int64_t j = 0; j < out; ++j) {
    double expected = 0;
    for (int64_t r = 0; r < rows; ++r) expected += dy.data<float>()[r * out + j];
    ASSERT_NEAR(db.data<float>()[j], expected, 1e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, LinearGradient, testing::Values(DType::kF32, DType::kBF16));

}  // namespace
}  // namespace tessera
