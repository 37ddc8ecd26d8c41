#include "tensor/ops/layer_norm/layer_norm.h"

#include "tests/op_testing.h"

namespace tessera {
namespace {

constexpr float kEps = 1e-5f;

struct Case {
  int64_t rows, channels;
  DType x_dtype, y_dtype;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const int64_t channels : {1, 3, 7, 17, 96, 200}) {
    for (const int64_t rows : {1, 5, 67}) {
      cases.push_back({rows, channels, DType::kF32, DType::kF32});
      cases.push_back({rows, channels, DType::kF32, DType::kBF16});
      cases.push_back({rows, channels, DType::kBF16, DType::kBF16});
      cases.push_back({rows, channels, DType::kBF16, DType::kF32});
    }
  }
  return cases;
}

struct Reference {
  Reference(const Tensor& x, const Tensor& gamma, const Tensor& beta)
      : rows(x.dim(0)), channels(x.dim(1)), y(x.numel()), x_hat(x.numel()), mean(rows), rstd(rows) {
    for (int64_t r = 0; r < rows; ++r) {
      double variance = 0;
      for (int64_t c = 0; c < channels; ++c) mean[r] += At(x, r * channels + c) / channels;
      for (int64_t c = 0; c < channels; ++c) {
        variance += std::pow(At(x, r * channels + c) - mean[r], 2) / channels;
      }
      rstd[r] = 1 / std::sqrt(variance + kEps);
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t i = r * channels + c;
        x_hat[i] = (At(x, i) - mean[r]) * rstd[r];
        y[i] = x_hat[i] * At(gamma, c) + At(beta, c);
      }
    }
  }
  int64_t rows, channels;
  std::vector<double> y, x_hat, mean, rstd;
};

class LayerNorm : public OnEveryTarget {};

TEST_P(LayerNorm, ForwardMatchesDoublePrecision) {
  for (const auto& [rows, channels, x_dtype, y_dtype] : Cases()) {
    const Tensor x = RandomTensor({rows, channels}, x_dtype, 1, 2, 5);
    const Tensor gamma = RandomTensor({channels}, DType::kF32, 2);
    const Tensor beta = RandomTensor({channels}, DType::kF32, 3);
    const auto [y, mean, rstd] = ops::LayerNorm(x, gamma, beta, kEps, y_dtype);
    const Reference reference(x, gamma, beta);
    EXPECT_EQ(y.dtype(), y_dtype);
    ExpectClose(mean, reference.mean, 1e-6);
    ExpectClose(y, reference.y, 1e-5);
    if (channels > 1) ExpectClose(rstd, reference.rstd, 1e-5);
  }
}

TEST_P(LayerNorm, BackwardMatchesDoublePrecisionAndAccumulates) {
  for (const auto& [rows, channels, x_dtype, dy_dtype] : Cases()) {
    const Tensor x = RandomTensor({rows, channels}, x_dtype, 1);
    const Tensor gamma = RandomTensor({channels}, DType::kF32, 2);
    const Tensor beta = RandomTensor({channels}, DType::kF32, 3);
    const Tensor dy = RandomTensor({rows, channels}, dy_dtype, 4);
    const Reference reference(x, gamma, beta);
    std::vector<double> dx(x.numel()), dgamma(channels), dbeta(channels);
    for (int64_t r = 0; r < rows; ++r) {
      double mean_g = 0, mean_g_x_hat = 0;
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t i = r * channels + c;
        mean_g += At(dy, i) * At(gamma, c) / channels;
        mean_g_x_hat += At(dy, i) * At(gamma, c) * reference.x_hat[i] / channels;
        dgamma[c] += At(dy, i) * reference.x_hat[i];
        dbeta[c] += At(dy, i);
      }
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t i = r * channels + c;
        dx[i] = reference.rstd[r] *
                (At(dy, i) * At(gamma, c) - mean_g - reference.x_hat[i] * mean_g_x_hat);
      }
    }
    const auto forward = ops::LayerNorm(x, gamma, beta, kEps, dy_dtype);
    for (const bool accumulate : {false, true}) {
      ops::LayerNormGradients gradients{Tensor::Empty(x.shape(), x_dtype),
                                        Tensor::Empty({channels}, DType::kF32),
                                        Tensor::Empty({channels}, DType::kF32)};
      if (accumulate) {
        gradients = {RandomTensor(x.shape(), x_dtype, 5),
                     RandomTensor({channels}, DType::kF32, 6),
                     RandomTensor({channels}, DType::kF32, 7),
                     true,
                     true,
                     true};
        for (int64_t i = 0; i < x.numel(); ++i) dx[i] += At(gradients.dx, i);
        for (int64_t c = 0; c < channels; ++c) dgamma[c] += At(gradients.dgamma, c);
        for (int64_t c = 0; c < channels; ++c) dbeta[c] += At(gradients.dbeta, c);
      }
      ops::LayerNormBackward(dy, x, forward.mean, forward.rstd, gamma, gradients);
      // Rows of one channel have a standard deviation of 0 and gradients of size rstd * 0.
      ExpectClose(gradients.dx, dx, channels == 1 ? 1e-4 : 2e-5);
      ExpectClose(gradients.dgamma, dgamma, 1e-5);
      ExpectClose(gradients.dbeta, dbeta, 1e-5);
    }
  }
}

TEST_P(LayerNorm, LargeMeanDoesNotCancelTheVariance) {
  const Tensor x = RandomTensor({3, 96}, DType::kF32, 1, 1000, 1001);
  const Tensor gamma = RandomTensor({96}, DType::kF32, 2);
  const Tensor beta = RandomTensor({96}, DType::kF32, 3);
  const auto result = ops::LayerNorm(x, gamma, beta, kEps, DType::kF32);
  ExpectClose(result.y, Reference(x, gamma, beta).y, 1e-3);
}

TEST_P(LayerNorm, NoRowsGiveZeroParameterGradients) {
  const Tensor x = Tensor::Empty({0, 8}, DType::kF32);
  const Tensor gamma = RandomTensor({8}, DType::kF32, 1);
  const auto result = ops::LayerNorm(x, gamma, gamma, kEps, DType::kF32);
  EXPECT_EQ(result.y.shape(), Shape({0, 8}));
  ops::LayerNormGradients gradients{x, Tensor::Empty({8}, DType::kF32),
                                    Tensor::Empty({8}, DType::kF32)};
  ops::LayerNormBackward(x, x, result.mean, result.rstd, gamma, gradients);
  ExpectClose(gradients.dgamma, std::vector<double>(8), 0);
  ExpectClose(gradients.dbeta, std::vector<double>(8), 0);
}

TEST_P(LayerNorm, HasTheSameBitsForAnyNumberOfThreads) {
  const Tensor x = RandomTensor({1001, 96}, DType::kF32, 1);
  const Tensor dy = RandomTensor({1001, 96}, DType::kF32, 2);
  const Tensor gamma = RandomTensor({96}, DType::kF32, 3);
  ExpectSameBitsForAnyThreads([&] {
    const auto result = ops::LayerNorm(x, gamma, gamma, kEps, DType::kF32);
    ops::LayerNormGradients gradients{Tensor::Empty(x.shape(), DType::kF32),
                                      Tensor::Empty({96}, DType::kF32),
                                      Tensor::Empty({96}, DType::kF32)};
    ops::LayerNormBackward(dy, x, result.mean, result.rstd, gamma, gradients);
    return std::vector<Tensor>{result.y,     result.mean,      result.rstd,
                               gradients.dx, gradients.dgamma, gradients.dbeta};
  });
}

INSTANTIATE_ON_EVERY_TARGET(LayerNorm);

}  // namespace
}  // namespace tessera
