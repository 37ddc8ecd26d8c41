#include "autograd/ops/linear.h"

#include "autograd/ops/cast.h"
#include "tests/gradcheck.h"

namespace tessera {
namespace {

std::vector<Tensor> Inputs() {
  return {RandomTensor({2, 5, 7}, DType::kF32, 1), RandomTensor({3, 7}, DType::kF32, 2),
          RandomTensor({3}, DType::kF32, 3)};
}

// The product of operands in one dtype with its result in another.
TensorFn Product(DType in_dtype, DType out_dtype) {
  return [=](const std::vector<Tensor>& in) {
    Tensor w = ops::Cast(in[1], in_dtype);
    Tape::Alias(in[1], w);
    return Linear(Cast(in[0], in_dtype), w, in[2], out_dtype);
  };
}

TEST(LinearGradient, OfInputWeightAndBiasMatchesFiniteDifferences) {
  EXPECT_TRUE(GradientsMatch(Product(DType::kF32, DType::kF32), Inputs()));
}

TEST(LinearGradient, NeedsNoBias) {
  EXPECT_TRUE(GradientsMatch(
      [](const std::vector<Tensor>& in) { return Linear(in[0], in[1], Tensor(), DType::kF32); },
      {Inputs()[0], Inputs()[1]}));
}

TEST(LinearGradient, AddsUpWhenAnInputIsUsedTwice) {
  EXPECT_TRUE(GradientsMatch(
      [](const std::vector<Tensor>& in) {
        const Tensor y = Linear(in[0], in[1], in[2], DType::kF32);
        return Linear(y, in[1], in[2], DType::kF32);
      },
      {RandomTensor({4, 7}, DType::kF32, 1), RandomTensor({7, 7}, DType::kF32, 2),
       RandomTensor({7}, DType::kF32, 3)}));
}

TEST(LinearGradient, OfBf16OperandsIsThatOfF32Rounded) {
  const auto expected = TapeGradients(Product(DType::kF32, DType::kF32), Inputs());
  for (const DType out : {DType::kF32, DType::kBF16}) {
    EXPECT_TRUE(
        GradientsAgree(expected, TapeGradients(Product(DType::kBF16, out), Inputs()), 0.02));
  }
}

// The result is that of f32 operands to the last bit; only the gradients are rounded.
TEST(LinearGradient, MayBeMadeOfBf16OperandsAlone) {
  const TensorFn exact = Product(DType::kF32, DType::kF32);
  const TensorFn mixed = [](const std::vector<Tensor>& in) {
    Tensor w = ops::Cast(in[1], DType::kBF16);
    Tape::Alias(in[1], w);
    return Linear(in[0], in[1], in[2], DType::kF32, w);
  };
  const Tensor expected = exact(Inputs()), got = mixed(Inputs());
  EXPECT_EQ(std::memcmp(got.raw(), expected.raw(), got.bytes()), 0);
  const auto gradients = TapeGradients(exact, Inputs()), rounded = TapeGradients(mixed, Inputs());
  EXPECT_TRUE(GradientsAgree(gradients, rounded, 0.02));
  EXPECT_NE(std::memcmp(rounded[0].raw(), gradients[0].raw(), rounded[0].bytes()), 0);
}

}  // namespace
}  // namespace tessera
