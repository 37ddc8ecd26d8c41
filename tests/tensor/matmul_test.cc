#include "tensor/ops/matmul/matmul.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/op_testing.h"

namespace tessera {
namespace {

struct Case {
  int64_t rows, in, out;
  DType dtype;
};

class MatMul : public testing::TestWithParam<Case> {};

TEST_P(MatMul, LinearAndItsGradientsMatchDoublePrecision) {
  const auto [rows, in, out, dtype] = GetParam();
  const Tensor x = RandomTensor({rows, in}, dtype, 1);
  const Tensor w = RandomTensor({out, in}, dtype, 2);
  const Tensor bias = RandomTensor({out}, DType::kF32, 3);
  const Tensor dy = RandomTensor({rows, out}, dtype, 4);
  const Tensor y = ops::Linear(x, w, bias, DType::kF32);
  Tensor dx = RandomTensor({rows, in}, DType::kF32, 5);
  const Tensor dx_before = dx.Clone();
  ops::LinearGradInput(dy, w, dx, /*accumulate=*/true);
  Tensor dw = RandomTensor({out, in}, DType::kF32, 6);
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
  const Tensor w = RandomTensor({3, 4}, DType::kF32, 1);
  EXPECT_EQ(ops::Linear(x, w, Tensor(), DType::kF32).shape(), Shape({0, 3}));
  const Tensor dw = RandomTensor({3, 4}, DType::kF32, 2);
  ops::LinearGradWeight(Tensor::Zeros({0, 3}, DType::kF32), x, dw, false);
  for (int64_t i = 0; i < dw.numel(); ++i) EXPECT_EQ(dw.data<float>()[i], 0.0f);
}

// Long sums of few outputs are what a library likes to share out to threads.
TEST(MatMulThreads, ProductsHaveTheSameBitsForAnyThreads) {
  constexpr struct {
    int64_t rows, in, out;
  } kSizes[] = {
      {3136, 96, 96}, {4096, 64, 256}, {6272, 192, 200}, {8192, 256, 256}, {8, 768, 1000}};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [rows, in, out] : kSizes) {
      const Tensor x = RandomTensor({rows, in}, dtype, 1), w = RandomTensor({out, in}, dtype, 2);
      const Tensor dy = RandomTensor({rows, out}, dtype, 3);
      ExpectSameBitsForAnyThreads([&]() -> std::vector<Tensor> {
        const Tensor dx = Tensor::Empty({rows, in}, dtype);
        const Tensor dw = Tensor::Empty({out, in}, DType::kF32);
        ops::LinearGradInput(dy, w, dx, false);
        ops::LinearGradWeight(dy, x, dw, false);
        return {ops::Linear(x, w, Tensor(), dtype), dx, dw};
      });
    }
  }
}

}  // namespace
}  // namespace tessera
