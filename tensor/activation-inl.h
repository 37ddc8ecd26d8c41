// Activation functions and their derivatives on vectors of floats.
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_TENSOR_ACTIVATION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_TENSOR_ACTIVATION_INL_H_
#undef TESSERA_TENSOR_ACTIVATION_INL_H_
#else
#define TESSERA_TENSOR_ACTIVATION_INL_H_
#endif

#include "hwy/highway.h"
#include "tensor/activation.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

// 1 / (1 + e^-x).
HWY_INLINE FloatVec Sigmoid(FloatTag df, FloatVec x) {
  const FloatVec one = hn::Set(df, 1.0f);
  return hn::Div(one, hn::Add(one, Exp(df, hn::Neg(x))));
}

// The tanh form of GELU is x sigmoid(u) with u = 2 sqrt(2 / pi) (x + 0.044715 x^3): its two
// coefficients.
inline constexpr float kGeluTanhLinear = 2.0f * 0.7978845608f;
inline constexpr float kGeluTanhCubic = 0.044715f * kGeluTanhLinear;

HWY_INLINE FloatVec GeluTanhSigmoid(FloatTag df, FloatVec x, FloatVec x2) {
  const FloatVec slope = hn::MulAdd(x2, hn::Set(df, kGeluTanhCubic), hn::Set(df, kGeluTanhLinear));
  return Sigmoid(df, hn::Mul(x, slope));
}

template <Activation kActivation>
HWY_INLINE FloatVec Activate(FloatTag df, FloatVec x) {
  if constexpr (kActivation == Activation::kGelu) {
    return Gelu<float>(df, x);
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    return hn::Mul(x, GeluTanhSigmoid(df, x, hn::Mul(x, x)));
  } else if constexpr (kActivation == Activation::kSilu) {
    return hn::Mul(x, Sigmoid(df, x));
  } else {
    return x;
  }
}

// An activation x s(x) with a sigmoid s of slope u' has the derivative s + x s (1 - s) u'.
HWY_INLINE FloatVec GatedDerivative(FloatTag df, FloatVec x_slope, FloatVec s) {
  return hn::MulAdd(hn::Mul(x_slope, s), hn::Sub(hn::Set(df, 1.0f), s), s);
}

template <Activation kActivation>
HWY_INLINE FloatVec ActivationDerivative(FloatTag df, FloatVec x) {
  if constexpr (kActivation == Activation::kGelu) {
    return GeluDerivative<float>(df, x);
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    const FloatVec x2 = hn::Mul(x, x);
    const FloatVec slope =
        hn::MulAdd(x2, hn::Set(df, 3.0f * kGeluTanhCubic), hn::Set(df, kGeluTanhLinear));
    return GatedDerivative(df, hn::Mul(x, slope), GeluTanhSigmoid(df, x, x2));
  } else if constexpr (kActivation == Activation::kSilu) {
    return GatedDerivative(df, x, Sigmoid(df, x));
  } else {
    return hn::Set(df, 1.0f);
  }
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_TENSOR_ACTIVATION_INL_H_
