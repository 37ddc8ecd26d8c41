#include "autograd/ops/residual.h"

#include "autograd/ops/activation.h"
#include "autograd/ops/cast.h"
#include "tests/gradcheck.h"

namespace tessera {
namespace {

TEST(AddResidualGradient, OfBothBranchesMatchesFiniteDifferences) {
  const std::vector<Tensor> inputs = {RandomTensor({3, 2, 7}, DType::kF32, 1),
                                      RandomTensor({3, 14}, DType::kF32, 2)};
  for (const Tensor& scale : {Tensor(), RandomTensor({3}, DType::kF32, 3)}) {
    EXPECT_TRUE(GradientsMatch(
        [scale](const std::vector<Tensor>& in) { return AddResidual(in[0], in[1], scale); },
        inputs));
    // As in a block: the branch reads the stream, so the stream's gradient is accumulated.
    EXPECT_TRUE(GradientsMatch(
        [scale](const std::vector<Tensor>& in) {
          const Tensor x = AddResidual(in[0], Activate(in[0], Activation::kGelu), scale);
          return AddResidual(x, Activate(x, Activation::kGelu), scale);
        },
        {inputs[0]}));
  }
}

TEST(AddResidualGradient, OfABf16BranchIsRounded) {
  const auto block = [](DType dtype) {
    return [dtype](const std::vector<Tensor>& in) {
      const Tensor scale = Tensor::From<float>({3}, std::vector<float>{0.0f, 1.25f, 1.25f});
      return AddResidual(in[0], Cast(in[1], dtype), scale);
    };
  };
  const std::vector<Tensor> inputs = {RandomTensor({3, 7}, DType::kF32, 1),
                                      RandomTensor({3, 7}, DType::kF32, 2)};
  EXPECT_TRUE(GradientsAgree(TapeGradients(block(DType::kF32), inputs),
                             TapeGradients(block(DType::kBF16), inputs), 0.01));
}

TEST(AddResidual, TakesTheMemoryOfAMovedBranch) {
  const Tensor x = RandomTensor({2, 3}, DType::kF32, 1);
  Tensor r = RandomTensor({2, 3}, DType::kF32, 2);
  const void* memory = r.raw();
  EXPECT_NE(AddResidual(x, r, Tensor()).raw(), memory);
  EXPECT_EQ(AddResidual(x, std::move(r), Tensor()).raw(), memory);
}

}  // namespace
}  // namespace tessera
