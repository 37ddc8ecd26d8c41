// Activation functions and their derivatives on GPUs. Formulas: tensor/activation.h.
#ifndef TESSERA_TENSOR_OPS_ACTIVATION_ACTIVATION_CUDA_H_
#define TESSERA_TENSOR_OPS_ACTIVATION_ACTIVATION_CUDA_H_

#include "core/cuda/device.h"
#include "tensor/activation.h"
#include "tensor/ops/activation/gelu_cuda.h"

namespace tessera {

// Bounds that keep e^-u of a sigmoid finite, as infinities would make NaNs of their products; a NaN
// gets through.
DEVICE float AtLeast(float low, float x) { return x < low ? low : x; }
DEVICE float Within(float bound, float x) { return x > bound ? bound : AtLeast(-bound, x); }
inline constexpr float kGeluTanhBound = 10.0f;
inline constexpr float kSiluBound = 85.0f;

DEVICE float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The derivative of x s, s = sigmoid(u): s + x u' s (1 - s), with 1 - s = e^-u s.
DEVICE float GatedDerivative(float u, float x_du) {
  const float e = expf(-u), s = 1.0f / (1.0f + e);
  return s + x_du * s * (e * s);
}

// The tanh form of GELU is x sigmoid(x (kGeluTanhLinear + kGeluTanhCubic x^2)).
inline constexpr float kGeluTanhLinear = 1.5957691216f;
inline constexpr float kGeluTanhCubic = 0.044715f * kGeluTanhLinear;

template <Activation kActivation>
DEVICE float Activate(float x) {
  if constexpr (kActivation == Activation::kGelu) {
    return GeluOf(x);
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    const float low = AtLeast(-kGeluTanhBound, x);
    return low * Sigmoid(low * (kGeluTanhLinear + kGeluTanhCubic * low * low));
  } else if constexpr (kActivation == Activation::kSilu) {
    const float low = AtLeast(-kSiluBound, x);
    return low * Sigmoid(low);
  } else if constexpr (kActivation == Activation::kRelu) {
    return x < 0.0f ? 0.0f : x;
  } else if constexpr (kActivation == Activation::kSigmoid) {
    return Sigmoid(x);
  } else if constexpr (kActivation == Activation::kTanh) {
    return tanhf(x);
  } else {
    return x;
  }
}

template <Activation kActivation>
DEVICE float ActivationDerivative(float x) {
  if constexpr (kActivation == Activation::kGelu) {
    return GeluDerivativeOf(x);
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    x = Within(kGeluTanhBound, x);
    return GatedDerivative(x * (kGeluTanhLinear + kGeluTanhCubic * x * x),
                           x * (kGeluTanhLinear + 3.0f * kGeluTanhCubic * x * x));
  } else if constexpr (kActivation == Activation::kSilu) {
    x = Within(kSiluBound, x);
    return GatedDerivative(x, x);
  } else if constexpr (kActivation == Activation::kRelu) {
    return x > 0.0f ? 1.0f : 0.0f * x;  // a NaN gets through
  } else if constexpr (kActivation == Activation::kSigmoid) {
    const float s = Sigmoid(x);
    return s * (1.0f - s);
  } else if constexpr (kActivation == Activation::kTanh) {
    const float t = tanhf(x);
    return 1.0f - t * t;
  } else {
    return 1.0f;
  }
}

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_ACTIVATION_ACTIVATION_CUDA_H_
