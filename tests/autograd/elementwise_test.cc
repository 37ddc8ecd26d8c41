// The nodes that have little to go wrong: dropout, mean pooling and casts.
#include "autograd/ops/cast.h"
#include "autograd/ops/dropout.h"
#include "autograd/ops/mean_pool.h"
#include "tests/gradcheck.h"

namespace tessera {
namespace {

TEST(DropoutGradient, MatchesFiniteDifferences) {
  const RandomKey key(1, Purpose::kDropout, 2, 3);
  EXPECT_TRUE(
      GradientsMatch([&](const std::vector<Tensor>& in) { return Dropout(in[0], 0.4, key); },
                     {RandomTensor({5, 7}, DType::kF32, 1)}));
}

TEST(Dropout, OfRateZeroIsTheInputItself) {
  const Tensor x = RandomTensor({5}, DType::kF32, 1);
  EXPECT_EQ(Dropout(x, 0, RandomKey(1, Purpose::kDropout)).raw(), x.raw());
}

TEST(MeanPoolGradient, MatchesFiniteDifferencesAndAccumulates) {
  EXPECT_TRUE(GradientsMatch([](const std::vector<Tensor>& in) { return MeanPool(in[0]); },
                             {RandomTensor({2, 3, 5, 7}, DType::kF32, 1)}));
  const auto twice = [](const std::vector<Tensor>& in) {
    const Tensor a = MeanPool(in[0]), b = MeanPool(in[0]);
    Tensor y = Tensor::Empty(a.shape(), DType::kF32);
    for (int64_t i = 0; i < y.numel(); ++i) Set(y, i, At(a, i) + At(b, i));
    Record("sum", {&a, &b}, {&y}, [](GradContext& g) {
      g.Add(0, g.out());
      g.Add(1, g.out());
    });
    return y;
  };
  EXPECT_TRUE(GradientsMatch(twice, {RandomTensor({2, 3, 17}, DType::kF32, 1)}));
}

TEST(CastGradient, IsConvertedBack) {
  const auto there_and_back = [](const std::vector<Tensor>& in) {
    return Cast(Cast(in[0], DType::kBF16), DType::kF32);
  };
  const auto identity = [](const std::vector<Tensor>& in) { return Cast(in[0], DType::kF32); };
  const std::vector<Tensor> inputs = {RandomTensor({5, 7}, DType::kF32, 1)};
  EXPECT_TRUE(
      GradientsAgree(TapeGradients(identity, inputs), TapeGradients(there_and_back, inputs), 0.01));
}

}  // namespace
}  // namespace tessera
