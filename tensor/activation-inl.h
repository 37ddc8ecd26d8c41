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

// 2 sigmoid(2 x) - 1.
HWY_INLINE FloatVec Tanh(FloatTag df, FloatVec x) {
  return hn::MulSub(hn::Set(df, 2.0f), Sigmoid(df, hn::Add(x, x)), hn::Set(df, 1.0f));
}

// Activations x sigmoid(u(x)) are x or 0, and their derivatives 1 or 0, beyond bounds that keep
// e^-u finite: infinities would make NaNs of their products. With a NaN, Min and Max give their
// second argument: it gets through.
HWY_INLINE FloatVec AtLeast(FloatTag df, float low, FloatVec x) {
  return hn::Max(hn::Set(df, low), x);
}
HWY_INLINE FloatVec Within(FloatTag df, float bound, FloatVec x) {
  return hn::Min(hn::Set(df, bound), AtLeast(df, -bound, x));
}
inline constexpr float kGeluTanhBound = 10.0f;
inline constexpr float kSiluBound = 85.0f;

// The tanh form of GELU has u = x (kGeluTanhLinear + kGeluTanhCubic x^2).
inline constexpr float kGeluTanhLinear = 2.0f * 0.7978845608f;
inline constexpr float kGeluTanhCubic = 0.044715f * kGeluTanhLinear;

HWY_INLINE FloatVec GeluTanhSlope(FloatTag df, FloatVec x2, float cubic) {
  return hn::MulAdd(x2, hn::Set(df, cubic), hn::Set(df, kGeluTanhLinear));
}

// Of x that was, or will be, stored as T: bf16 allows a shorter exact GELU.
template <Activation kActivation, typename T = float>
HWY_INLINE FloatVec Activate(FloatTag df, FloatVec x) {
  if constexpr (kActivation == Activation::kGelu) {
    return Gelu<T>(df, x);
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    const FloatVec low = AtLeast(df, -kGeluTanhBound, x);
    const FloatVec slope = GeluTanhSlope(df, hn::Mul(low, low), kGeluTanhCubic);
    return hn::Mul(low, Sigmoid(df, hn::Mul(low, slope)));
  } else if constexpr (kActivation == Activation::kSilu) {
    const FloatVec low = AtLeast(df, -kSiluBound, x);
    return hn::Mul(low, Sigmoid(df, low));
  } else if constexpr (kActivation == Activation::kRelu) {
    return hn::Max(hn::Zero(df), x);  // with a NaN, Max gives its second argument
  } else if constexpr (kActivation == Activation::kSigmoid) {
    return Sigmoid(df, x);
  } else if constexpr (kActivation == Activation::kTanh) {
    return Tanh(df, x);
  } else {
    return x;
  }
}

// The derivative of x s, s = sigmoid(u): s + x u' s (1 - s), with 1 - s = e^-u s, which keeps its
// precision where s is nearly 1.
HWY_INLINE FloatVec GatedDerivative(FloatTag df, FloatVec u, FloatVec x_du) {
  const FloatVec one = hn::Set(df, 1.0f);
  const FloatVec e = Exp(df, hn::Neg(u));
  const FloatVec s = hn::Div(one, hn::Add(one, e));
  return hn::MulAdd(hn::Mul(x_du, s), hn::Mul(e, s), s);
}

template <Activation kActivation, typename T = float>
HWY_INLINE FloatVec ActivationDerivative(FloatTag df, FloatVec x) {
  if constexpr (kActivation == Activation::kGelu) {
    return GeluDerivative<T>(df, x);
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    x = Within(df, kGeluTanhBound, x);
    const FloatVec x2 = hn::Mul(x, x);
    return GatedDerivative(df, hn::Mul(x, GeluTanhSlope(df, x2, kGeluTanhCubic)),
                           hn::Mul(x, GeluTanhSlope(df, x2, 3.0f * kGeluTanhCubic)));
  } else if constexpr (kActivation == Activation::kSilu) {
    x = Within(df, kSiluBound, x);
    return GatedDerivative(df, x, x);
  } else if constexpr (kActivation == Activation::kRelu) {
    return hn::IfThenElseZero(hn::Not(hn::Le(x, hn::Zero(df))), hn::Set(df, 1.0f));
  } else if constexpr (kActivation == Activation::kSigmoid) {
    const FloatVec s = Sigmoid(df, x);
    return hn::NegMulAdd(s, s, s);
  } else if constexpr (kActivation == Activation::kTanh) {
    const FloatVec t = Tanh(df, x);
    return hn::NegMulAdd(t, t, hn::Set(df, 1.0f));
  } else {
    return hn::Set(df, 1.0f);
  }
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_TENSOR_ACTIVATION_INL_H_
