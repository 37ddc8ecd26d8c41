#include "autograd/ops/conv2d.h"

#include "autograd/ops/cast.h"
#include "tests/gradcheck.h"

namespace tessera {
namespace {

std::vector<Tensor> Inputs() {
  return {RandomTensor({2, 7, 5, 3}, DType::kF32, 1), RandomTensor({4, 3, 2, 2}, DType::kF32, 2),
          RandomTensor({4}, DType::kF32, 3)};
}

// Kernel 2, stride 2, odd sizes padded at the right and bottom: DaViT's downsampling.
constexpr Conv2dGeometry kDownsampling{.stride = 2, .pad_bottom = 1, .pad_right = 1};

TensorFn Convolution(const Conv2dGeometry& geometry, DType dtype) {
  return [=](const std::vector<Tensor>& in) {
    return Conv2d(Cast(in[0], dtype), in[1], in[2], geometry, dtype);
  };
}

TEST(Conv2dGradient, OfInputWeightAndBiasMatchesFiniteDifferences) {
  for (const Conv2dGeometry& geometry : {Conv2dGeometry{.stride = 1}, kDownsampling}) {
    EXPECT_TRUE(GradientsMatch(Convolution(geometry, DType::kF32), Inputs()));
  }
}

TEST(Conv2dGradient, OfBf16IsThatOfF32Rounded) {
  EXPECT_TRUE(GradientsAgree(TapeGradients(Convolution(kDownsampling, DType::kF32), Inputs()),
                             TapeGradients(Convolution(kDownsampling, DType::kBF16), Inputs()),
                             0.02));
}

}  // namespace
}  // namespace tessera
