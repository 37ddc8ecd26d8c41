#include "tensor/ops/matmul/matmul.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>

#include "core/random.h"

namespace tessera {
namespace {

Tensor Random(const Shape& shape, DType dtype, uint64_t seed) {
  RandomStream random(seed, Purpose::kTest);
  Tensor t = Tensor::Empty(shape, dtype);
  for (int64_t i = 0; i < t.numel(); ++i) {
    const float value = static_cast<float>(random.Uniform(-1, 1));
    if (dtype == DType::kF32) {
      t.data<float>()[i] = value;
    } else {
      t.data<BF16>()[i] = BF16(value);
    }
  }
  return t;
}

double At(const Tensor& t, int64_t i) {
  return t.dtype() == DType::kF32 ? t.data<float>()[i] : static_cast<float>(t.data<BF16>()[i]);
}

struct Case {
  int64_t rows, in, out;
  DType dtype;
};

class MatMul : public testing::TestWithParam<Case> {};

TEST_P(MatMul, LinearAndItsGradientsMatchDoublePrecision) {
  const auto [rows, in, out, dtype] = GetParam();
  const Tensor x = Random({rows, in}, dtype, 1);
  const Tensor w = Random({out, in}, dtype, 2);
  const Tensor bias = Random({out}, DType::kF32, 3);
  const Tensor dy = Random({rows, out}, dtype, 4);
  const Tensor y = ops::Linear(x, w, bias, DType::kF32);
  Tensor dx = Random({rows, in}, DType::kF32, 5);
  const Tensor dx_before = dx.Clone();
  ops::LinearGradInput(dy, w, dx, /*accumulate=*/true);
  Tensor dw = Random({out, in}, DType::kF32, 6);
  ops::LinearGradWeight(dy, x, dw, /*accumulate=*/false);
  Tensor dw_sum = dw.Clone();
  ops::LinearGradWeight(dy, x, dw_sum, /*accumulate=*/true);
  const double tolerance = 2e-6;  // f32 rounding per term; bf16 inputs are exact
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < out; ++j) {
      double sum = At(bias, j);
      for (int64_t k = 0; k < in; ++k) sum += At(x, i * in + k) * At(w, j * in + k);
      ASSERT_NEAR(At(y, i * out + j), sum, tolerance * (in + 1)) << i << ", " << j;
    }
    for (int64_t k = 0; k < in; ++k) {
      double sum = At(dx_before, i * in + k);
      for (int64_t j = 0; j < out; ++j) sum += At(dy, i * out + j) * At(w, j * in + k);
      ASSERT_NEAR(At(dx, i * in + k), sum, tolerance * (out + 1)) << i << ", " << k;
    }
  }
  for (int64_t j = 0; j < out; ++j) {
    for (int64_t k = 0; k < in; ++k) {
      double sum = 0;
      for (int64_t i = 0; i < rows; ++i) sum += At(dy, i * out + j) * At(x, i * in + k);
      ASSERT_NEAR(At(dw, j * in + k), sum, tolerance * (rows + 1)) << j << ", " << k;
      ASSERT_NEAR(At(dw_sum, j * in + k), 2 * sum, 2 * tolerance * (rows + 1)) << j << ", " << k;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(OddAndEvenSizes, MatMul,
                         testing::Values(Case{1, 1, 1, DType::kF32}, Case{7, 5, 3, DType::kF32},
                                         Case{63, 96, 33, DType::kF32},
                                         Case{129, 24, 72, DType::kF32},
                                         Case{1, 3, 2, DType::kBF16}, Case{7, 5, 3, DType::kBF16},
                                         Case{63, 96, 33, DType::kBF16},
                                         Case{3201, 33, 7, DType::kBF16},
                                         Case{3300, 16, 50, DType::kBF16}));

TEST(MatMulEmpty, NoRowsGiveAnEmptyOutputAndAZeroGradient) {
  const Tensor x = Tensor::Zeros({0, 4}, DType::kF32);
  const Tensor w = Random({3, 4}, DType::kF32, 1);
  EXPECT_EQ(ops::Linear(x, w, Tensor(), DType::kF32).shape(), Shape({0, 3}));
  const Tensor dw = Random({3, 4}, DType::kF32, 2);
  ops::LinearGradWeight(Tensor::Zeros({0, 3}, DType::kF32), x, dw, false);
  for (int64_t i = 0; i < dw.numel(); ++i) EXPECT_EQ(dw.data<float>()[i], 0.0f);
}

TEST(MatMulThreads, WeightGradientHasTheSameBitsForOneAndTwoThreads) {
  const int threads = omp_get_max_threads();
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor dy = Random({3136, 96}, dtype, 1);
    const Tensor x = Random({3136, 96}, dtype, 2);
    const Tensor one = Tensor::Empty({96, 96}, DType::kF32);
    const Tensor two = Tensor::Empty({96, 96}, DType::kF32);
    omp_set_num_threads(1);
    ops::LinearGradWeight(dy, x, one, false);
    omp_set_num_threads(2);
    ops::LinearGradWeight(dy, x, two, false);
    EXPECT_EQ(std::memcmp(one.raw(), two.raw(), one.bytes()), 0);
  }
  omp_set_num_threads(threads);
}

}  // namespace
}  // namespace tessera
