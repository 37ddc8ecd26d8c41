#include "autograd/ops/conv_glu.h"

#include "autograd/ops/activation.h"
#include "autograd/ops/depthwise_conv.h"
#include "autograd/ops/linear.h"
#include "tests/gradcheck.h"

namespace tessera {
namespace {

// x, w1, b1, kernel and bias of the convolution, w2, b2: 3 channels, 5 hidden.
std::vector<Tensor> Inputs() {
  return {RandomTensor({2, 3, 4, 3}, DType::kF32, 1), RandomTensor({10, 3}, DType::kF32, 2),
          RandomTensor({10}, DType::kF32, 3),         RandomTensor({5, 1, 3, 3}, DType::kF32, 4),
          RandomTensor({5}, DType::kF32, 5),          RandomTensor({4, 5}, DType::kF32, 6),
          RandomTensor({4}, DType::kF32, 7)};
}

Tensor Fused(const std::vector<Tensor>& in) {
  return ConvGlu(in[0], in[1], in[2], {in[3], in[4]}, in[5], in[6]);
}

TEST(ConvGluGradient, MatchesFiniteDifferences) { EXPECT_TRUE(GradientsMatch(Fused, Inputs())); }

TEST(ConvGluGradient, AddsUpWhenAnInputIsUsedTwice) {
  EXPECT_TRUE(GradientsMatch(
      [](const std::vector<Tensor>& in) {
        const Tensor once = Fused(in);
        // Four channels again become three by a product, so that all weights are used twice.
        return Fused(
            {Linear(once, in[7], Tensor(), DType::kF32), in[1], in[2], in[3], in[4], in[5], in[6]});
      },
      [] {
        std::vector<Tensor> inputs = Inputs();
        inputs.push_back(RandomTensor({3, 4}, DType::kF32, 8));
        return inputs;
      }(),
      {.tolerance = 4e-3}));
}

// By separate ops, the gate by a node of its own.
Tensor Separate(const std::vector<Tensor>& in, DType dtype) {
  const auto half = [](const Tensor& t, int half) {
    const int64_t rows = t.dim(0) / 2;
    return t.Slice(half * rows, (half + 1) * rows);
  };
  const Tensor a = Linear(in[0], half(in[1], 0), half(in[2], 0), dtype);
  const Tensor g = Linear(in[0], half(in[1], 1), half(in[2], 1), dtype);
  const Tensor conv = DepthwiseConv(a, in[3], in[4], {1, 1, 1, 1, 1}, /*residual=*/false);
  const Tensor active = Activate(conv, Activation::kGelu);
  const Tensor gated = Tensor::Empty(active.shape(), dtype);
  for (int64_t i = 0; i < gated.numel(); ++i) Set(gated, i, At(active, i) * At(g, i));
  return Linear(gated, in[5], in[6], dtype);
}

TEST(ConvGlu, IsItsPartsInBothDtypes) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<Tensor> in = Inputs();
    for (const int k : {0, 1, 5}) in[k] = ops::Cast(in[k], dtype);
    const Tensor fused = Fused(in);
    EXPECT_EQ(fused.shape(), Shape({2, 3, 4, 4}));
    EXPECT_EQ(fused.dtype(), dtype);
    ExpectClose(fused, ToDouble(Separate(in, dtype)), dtype == DType::kF32 ? 1e-6 : 1e-2);
  }
}

TEST(ConvGluGradient, OfBf16AgreesWithF32) {
  const auto in_dtype = [](DType dtype) {
    return TapeGradients(
        [dtype](const std::vector<Tensor>& in) {
          std::vector<Tensor> operands = in;
          for (const int k : {0, 1, 5}) {
            operands[k] = ops::Cast(in[k], dtype);
            Tape::Alias(in[k], operands[k]);
          }
          return Fused(operands);
        },
        Inputs());
  };
  EXPECT_TRUE(GradientsAgree(in_dtype(DType::kF32), in_dtype(DType::kBF16), 0.03));
}

}  // namespace
}  // namespace tessera
