#include "autograd/ops/mlp.h"

#include "autograd/ops/activation.h"
#include "autograd/ops/linear.h"
#include "tests/gradcheck.h"

namespace tessera {
namespace {

std::vector<Tensor> Inputs() {
  return {RandomTensor({2, 3, 7}, DType::kF32, 1), RandomTensor({5, 7}, DType::kF32, 2),
          RandomTensor({5}, DType::kF32, 3), RandomTensor({4, 5}, DType::kF32, 4),
          RandomTensor({4}, DType::kF32, 5)};
}

TEST(MlpGradient, MatchesFiniteDifferences) {
  EXPECT_TRUE(GradientsMatch(
      [](const std::vector<Tensor>& in) {
        return Mlp(in[0], in[1], in[2], in[3], in[4], Activation::kGeluTanh);
      },
      Inputs()));
}

TEST(MlpGradient, NeedsNoBiases) {
  EXPECT_TRUE(GradientsMatch(
      [](const std::vector<Tensor>& in) {
        return Mlp(in[0], in[1], {}, in[2], {}, Activation::kGelu);
      },
      {Inputs()[0], Inputs()[1], Inputs()[3]}));
}

TEST(MlpGradient, IsThatOfItsParts) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    // The operands of the products as aliases of the f32 inputs in `dtype`.
    const auto operands = [dtype](const std::vector<Tensor>& in) {
      std::vector<Tensor> out = in;
      for (const int k : {0, 1, 3}) {
        out[k] = ops::Cast(in[k], dtype);
        Tape::Alias(in[k], out[k]);
      }
      return out;
    };
    const auto fused = [&](const std::vector<Tensor>& in) {
      const auto o = operands(in);
      return Mlp(o[0], o[1], o[2], o[3], o[4], Activation::kGelu);
    };
    const auto separate = [&](const std::vector<Tensor>& in) {
      const auto o = operands(in);
      return Linear(Activate(Linear(o[0], o[1], o[2], dtype), Activation::kGelu), o[3], o[4],
                    dtype);
    };
    EXPECT_TRUE(
        GradientsAgree(TapeGradients(fused, Inputs()), TapeGradients(separate, Inputs()), 0.01));
  }
}

}  // namespace
}  // namespace tessera
