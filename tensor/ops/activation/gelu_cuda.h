// GELU and its derivative on GPUs.
#ifndef TESSERA_TENSOR_OPS_ACTIVATION_GELU_CUDA_H_
#define TESSERA_TENSOR_OPS_ACTIVATION_GELU_CUDA_H_

#include "core/cuda/device.h"

namespace tessera {

// Phi(x) = erfc(-x / sqrt 2) / 2, which keeps its relative precision where it is small. At minus
// infinity, x Phi(x) is its limit.
DEVICE float NormalCdf(float x) {
  constexpr float kSqrtHalf = 0.70710678118654752f;
  return 0.5f * erfcf(-x * kSqrtHalf);
}

DEVICE float GeluOf(float x) {
  const float cdf = NormalCdf(x);
  return cdf == 0.0f ? 0.0f : x * cdf;
}

DEVICE float GeluDerivativeOf(float x) {
  constexpr float kInverseSqrtTwoPi = 0.39894228040143268f;
  const float density = kInverseSqrtTwoPi * expf(-0.5f * x * x);
  return NormalCdf(x) + (density == 0.0f ? 0.0f : x * density);
}

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_ACTIVATION_GELU_CUDA_H_
