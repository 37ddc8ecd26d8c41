#include "autograd/ops/scale_columns.h"

#include "autograd/ops/cast.h"
#include "autograd/ops/residual.h"
#include "tests/gradcheck.h"

namespace tessera {
namespace {

TEST(ScaleColumnsGradient, MatchesFiniteDifferences) {
  const std::vector<Tensor> inputs = {RandomTensor({3, 2, 7}, DType::kF32, 1),
                                      RandomTensor({7}, DType::kF32, 2)};
  EXPECT_TRUE(GradientsMatch(
      [](const std::vector<Tensor>& in) { return ScaleColumns(in[0], in[1]); }, inputs));
  // Both are used twice, and the first gradient is needed again where it could be overwritten.
  EXPECT_TRUE(GradientsMatch(
      [](const std::vector<Tensor>& in) {
        const Tensor x = AddResidual(in[0], ScaleColumns(in[0], in[1]), Tensor());
        return AddResidual(x, ScaleColumns(x, in[1]), Tensor());
      },
      inputs));
}

TEST(ScaleColumnsGradient, OfBf16IsRounded) {
  const auto scaled = [](DType dtype) {
    return [dtype](const std::vector<Tensor>& in) {
      return Cast(ScaleColumns(Cast(in[0], dtype), in[1]), DType::kF32);
    };
  };
  const std::vector<Tensor> inputs = {RandomTensor({30, 7}, DType::kF32, 1),
                                      RandomTensor({7}, DType::kF32, 2)};
  EXPECT_TRUE(GradientsAgree(TapeGradients(scaled(DType::kF32), inputs),
                             TapeGradients(scaled(DType::kBF16), inputs), 0.02));
}

}  // namespace
}  // namespace tessera
