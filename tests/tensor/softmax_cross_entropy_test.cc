#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/random.h"

namespace tessera {
namespace {

Tensor Random(const Shape& shape, uint64_t seed, double scale) {
  RandomStream random(seed, Purpose::kTest);
  Tensor t = Tensor::Empty(shape, DType::kF32);
  for (int64_t i = 0; i < t.numel(); ++i) {
    t.data<float>()[i] = static_cast<float>(scale * random.Uniform());
  }
  return t;
}

TEST(SoftmaxCrossEntropy, LossAndGradientMatchDoublePrecision) {
  for (const int64_t batch : {1, 3, 20}) {
    for (const int64_t classes : {1, 3, 17, 1000}) {
      const Tensor logits = Random({batch, classes}, 1, 20.0);
      const Tensor targets = Random({batch, classes}, 2, 1.0);
      const auto result = ops::SoftmaxCrossEntropy(logits, targets, true);
      double mean = 0.0;
      for (int64_t b = 0; b < batch; ++b) {
        const float* x = logits.data<float>() + b * classes;
        const float* t = targets.data<float>() + b * classes;
        double total = 0.0, target_sum = 0.0, loss = 0.0;
        for (int64_t k = 0; k < classes; ++k) total += std::exp(double{x[k]});
        for (int64_t k = 0; k < classes; ++k) target_sum += t[k];
        for (int64_t k = 0; k < classes; ++k) loss -= t[k] * (x[k] - std::log(total));
        mean += loss / static_cast<double>(batch);
        for (int64_t k = 0; k < classes; ++k) {
          const double d = (std::exp(double{x[k]}) / total * target_sum - t[k]) / batch;
          ASSERT_NEAR(result.dlogits.data<float>()[b * classes + k], d, 1e-5 * target_sum);
        }
      }
      EXPECT_NEAR(*result.loss.data<float>(), mean, 2e-6 * (1.0 + mean));
    }
  }
}

TEST(SoftmaxCrossEntropy, StaysFiniteForHugeLogits) {
  const std::vector<float> logits = {1e30f, -1e30f, 0.0f};
  const Tensor targets = ops::SmoothedOneHot(std::vector<int32_t>{0}, 3, 0.0);
  const auto result = ops::SoftmaxCrossEntropy(Tensor::From<float>({1, 3}, logits), targets, true);
  EXPECT_EQ(*result.loss.data<float>(), 0.0f);
  for (int k = 0; k < 3; ++k) EXPECT_EQ(result.dlogits.data<float>()[k], 0.0f);
}

TEST(SmoothedOneHot, SpreadsTheSmoothingOverAllClasses) {
  const Tensor t = ops::SmoothedOneHot(std::vector<int32_t>{2, 0}, 4, 0.1);
  EXPECT_FLOAT_EQ(t.data<float>()[2], 0.925f);
  EXPECT_FLOAT_EQ(t.data<float>()[3], 0.025f);
  EXPECT_FLOAT_EQ(t.data<float>()[4], 0.925f);
  EXPECT_DEATH(ops::SmoothedOneHot(std::vector<int32_t>{4}, 4, 0.1), "label 4 of 4");
}

}  // namespace
}  // namespace tessera
