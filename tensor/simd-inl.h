// Building blocks of CPU kernels: vectors of floats loaded from and stored to f32 or bf16, tails,
// sums, exp and GELU.
//
// A kernel file is compiled once per instruction set, so it starts with
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "tensor/ops/cast/cast_cpu.cc"  // itself
//   #include "tensor/simd_targets.h"
//   #include "hwy/foreach_target.h"
//   #include "hwy/highway.h"
//   #include "tensor/simd-inl.h"
// and keeps its vector code in namespace tessera::HWY_NAMESPACE. Lambdas with vector code need
// HWY_ATTR.

#include <cstdint>
#include <type_traits>

#include "core/dtype.h"
#include "tensor/simd_targets.h"

#if defined(TESSERA_TENSOR_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_TENSOR_SIMD_INL_H_
#undef TESSERA_TENSOR_SIMD_INL_H_
#else
#define TESSERA_TENSOR_SIMD_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using FloatTag = hn::ScalableTag<float>;
using FloatVec = hn::Vec<FloatTag>;

// In place of a number of lanes: all of them.
struct WholeVector {};

// The floats at p.
HWY_INLINE FloatVec LoadF32(FloatTag df, const float* p) { return hn::LoadU(df, p); }
HWY_INLINE FloatVec LoadF32(FloatTag df, const BF16* p) {
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::Rebind<uint16_t, FloatTag> du16;
  return hn::BitCast(df, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(du16, &p->bits))));
}

// Rounds to nearest even; a NaN stays a NaN. The instruction for it, which Highway has no target
// for yet, makes zero of a subnormal.
HWY_INLINE void StoreF32(FloatVec v, FloatTag df, float* p) { hn::StoreU(v, df, p); }
HWY_INLINE void StoreF32(FloatVec v, FloatTag, BF16* p) {
#if HWY_TARGET == HWY_AVX3
  if (HWY_LIKELY(kCpuHasAvx512Bf16)) {
    __m256i rounded;
    asm("vcvtneps2bf16 %1, %0" : "=v"(rounded) : "v"(v.raw));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded);
    return;
  }
#endif
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::RebindToSigned<FloatTag> di;
  const hn::Rebind<uint16_t, FloatTag> du16;
  const auto bits = hn::BitCast(du, v);
  const auto high = hn::ShiftRight<16>(bits);
  const auto half = hn::Add(hn::And(high, hn::Set(du, 1)), hn::Set(du, 0x7FFF));
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, half));
  const auto quiet_nan = hn::Or(high, hn::Set(du, 0x40));
  const auto is_nan = hn::RebindMask(du, hn::IsNaN(v));
  const auto result = hn::IfThenElse(is_nan, quiet_nan, rounded);
  hn::StoreU(hn::DemoteTo(du16, hn::BitCast(di, result)), du16, &p->bits);
}

// The first n floats at p, zero in the other lanes; nothing past them is read. 0 <= n <= lanes.
HWY_INLINE FloatVec LoadF32N(FloatTag df, const float* p, int64_t n) {
#if HWY_CAP_GE256
  return hn::MaskedLoad(hn::FirstN(df, static_cast<size_t>(n)), df, p);
#else
  HWY_ALIGN float lanes[hn::MaxLanes(FloatTag())] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return hn::Load(df, lanes);
#endif
}
HWY_INLINE FloatVec LoadF32N(FloatTag df, const BF16* p, int64_t n) {
  HWY_ALIGN BF16 lanes[hn::MaxLanes(FloatTag())];
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return LoadF32(df, lanes);
}
template <typename T>
HWY_INLINE FloatVec LoadF32N(FloatTag df, const T* p, WholeVector) {
  return LoadF32(df, p);
}

// Stores the first n lanes; nothing past them is touched.
HWY_INLINE void StoreF32N(FloatVec v, FloatTag df, float* p, int64_t n) {
#if HWY_CAP_GE256
  hn::BlendedStore(v, hn::FirstN(df, static_cast<size_t>(n)), df, p);
#else
  HWY_ALIGN float lanes[hn::MaxLanes(FloatTag())];
  hn::Store(v, df, lanes);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
#endif
}
HWY_INLINE void StoreF32N(FloatVec v, FloatTag df, BF16* p, int64_t n) {
  HWY_ALIGN BF16 lanes[hn::MaxLanes(FloatTag())];
  StoreF32(v, df, lanes);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}
template <typename T>
HWY_INLINE void StoreF32N(FloatVec v, FloatTag df, T* p, WholeVector) {
  StoreF32(v, df, p);
}

// v with zeros past its first n lanes.
HWY_INLINE FloatVec KeepF32N(FloatTag df, FloatVec v, int64_t n) {
  return hn::IfThenElseZero(hn::FirstN(df, static_cast<size_t>(n)), v);
}
HWY_INLINE FloatVec KeepF32N(FloatTag, FloatVec v, WholeVector) { return v; }

// Calls fn(i, WholeVector()) for each whole vector of n floats, then fn(i, rest) for what is left,
// if any.
template <typename Fn>
HWY_INLINE void ForEachVector(FloatTag df, int64_t n, const Fn& fn) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) fn(i, WholeVector());
  if (i < n) fn(i, n - i);
}

// Sum of fn(i, lanes), called as above, in four interleaved partial sums to hide the latency of an
// addition. fn's result must be zero in the lanes past the end.
template <typename Fn>
HWY_INLINE FloatVec SumOverVectors(FloatTag df, int64_t n, const Fn& fn) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  FloatVec s0 = hn::Zero(df), s1 = s0, s2 = s0, s3 = s0;
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    s0 = hn::Add(s0, fn(i, WholeVector()));
    s1 = hn::Add(s1, fn(i + lanes, WholeVector()));
    s2 = hn::Add(s2, fn(i + 2 * lanes, WholeVector()));
    s3 = hn::Add(s3, fn(i + 3 * lanes, WholeVector()));
  }
  for (; i + lanes <= n; i += lanes) s0 = hn::Add(s0, fn(i, WholeVector()));
  if (i < n) s1 = hn::Add(s1, fn(i, n - i));
  return hn::Add(hn::Add(s0, s1), hn::Add(s2, s3));
}

HWY_INLINE float SumF32(FloatTag df, FloatVec v) { return hn::GetLane(hn::SumOfLanes(df, v)); }
HWY_INLINE float MaxF32(FloatTag df, FloatVec v) { return hn::GetLane(hn::MaxOfLanes(df, v)); }

namespace simd_internal {

// c[0] + c[1] x + ... + c[N-1] x^(N-1) by Horner's rule on its even and odd powers, two shorter
// chains.
template <size_t N>
HWY_INLINE FloatVec Polynomial(FloatTag df, FloatVec x, const float (&c)[N]) {
  constexpr size_t kLastEven = (N - 1) / 2 * 2;
  constexpr size_t kLastOdd = N / 2 * 2 - 1;
  const FloatVec x2 = hn::Mul(x, x);
  FloatVec even = hn::Set(df, c[kLastEven]);
  FloatVec odd = hn::Set(df, c[kLastOdd]);
  HWY_UNROLL(16)
  for (size_t i = kLastEven; i > 0; i -= 2) even = hn::MulAdd(even, x2, hn::Set(df, c[i - 2]));
  HWY_UNROLL(16)
  for (size_t i = kLastOdd; i > 1; i -= 2) odd = hn::MulAdd(odd, x2, hn::Set(df, c[i - 2]));
  return hn::MulAdd(odd, x, even);
}

// A function of u = |x| that falls to 0 at `end` and stays there: a minimax polynomial in
// z = 2 u / end - 1 with the factor 1 - z.
template <size_t N>
HWY_INLINE FloatVec NormalTail(FloatTag df, FloatVec x, float end, const float (&c)[N]) {
  const FloatVec one = hn::Set(df, 1.0f);
  // With a NaN, Min and Max give their second argument: it gets through.
  const FloatVec u = hn::Min(hn::Set(df, end), hn::Abs(x));
  const FloatVec z = hn::MulSub(u, hn::Set(df, 2.0f / end), one);
  return hn::Mul(hn::Sub(one, z), Polynomial(df, z, c));
}

}  // namespace simd_internal

// e^x within 2 ulp: e^x = 2^n e^r with |r| <= ln(2)/2, and e^r by a minimax polynomial (relative
// error 3e-9). Zero below -86.9 (results under 2e-38), infinity above 88.72.
HWY_INLINE FloatVec Exp(FloatTag df, FloatVec x) {
  static constexpr float kCoefficients[] = {0.4999999345f, 0.1666652069f, 0.0416683874f,
                                            0.008368709865f, 0.001381461149f};
  const hn::RebindToSigned<FloatTag> di;
  const FloatVec low = hn::Set(df, -86.9f);
  // With a NaN, Min and Max give their second argument: it gets through.
  const FloatVec clamped = hn::Min(hn::Set(df, 89.0f), hn::Max(low, x));
  // Adding 1.5 * 2^23 rounds to the nearest integer n and leaves it in the low bits.
  const FloatVec shifter = hn::Set(df, 12582912.0f);
  const FloatVec shifted = hn::MulAdd(clamped, hn::Set(df, 1.44269504f), shifter);
  const FloatVec n = hn::Sub(shifted, shifter);
  // ln(2) in two parts, the first with so few bits that n times it is exact.
  FloatVec r = hn::NegMulAdd(n, hn::Set(df, 0.693359375f), clamped);
  r = hn::NegMulAdd(n, hn::Set(df, -2.12194440e-4f), r);
  const FloatVec p = simd_internal::Polynomial(df, r, kCoefficients);
  const FloatVec exp_r = hn::Add(hn::MulAdd(hn::Mul(r, r), p, r), hn::Set(df, 1.0f));
  // 2^(n-1), then doubled: 2^n itself overflows at n = 128.
  const auto exponent =
      hn::Add(hn::ShiftLeft<23>(hn::BitCast(di, shifted)), hn::Set(di, 126 << 23));
  const FloatVec y = hn::Mul(hn::Mul(exp_r, hn::BitCast(df, exponent)), hn::Set(df, 2.0f));
  return hn::IfThenZeroElse(hn::Lt(x, low), y);
}

// Exact (erf) GELU, x Phi(x) = max(x, 0) - |x| Phi(-|x|): no exp, no division. Absolute error under
// 4e-7 for results stored as f32, 1.6e-5 for bf16, whose own rounding is more than that wherever
// the result exceeds 0.01.
template <typename T>
HWY_INLINE FloatVec Gelu(FloatTag df, FloatVec x) {
  static constexpr float kPrecise[] = {
      0.002979770084f, -0.02202837085f, 0.0725302526f,   -0.1342750436f,   0.1375973657f,
      -0.03959158907f, -0.09083536441f, 0.1276566431f,   -0.03601784703f,  -0.07087708219f,
      0.06354800904f,  0.01401341515f,  -0.03065561114f, 0.0001057670965f, 0.005856470726f};
  static constexpr float kShort[] = {0.01222126558f,  -0.05912210792f, 0.121794112f,
                                     -0.1246640682f,  0.03184580803f,  0.06906573474f,
                                     -0.06015239283f, -0.01006176975f, 0.01952316612f};
  const FloatVec tail = [&]() HWY_ATTR {
    if constexpr (std::is_same_v<T, BF16>) {
      return simd_internal::NormalTail(df, x, 4.5f, kShort);
    } else {
      return simd_internal::NormalTail(df, x, 5.5f, kPrecise);
    }
  }();
  // The tail ends in 0, and with it the product unless x is infinite.
  const FloatVec u = hn::Min(hn::Set(df, 5.5f), hn::Abs(x));
  return hn::NegMulAdd(u, tail, hn::Max(hn::Zero(df), x));
}

// Its derivative Phi(x) + x phi(x), with d(-u) = 1 - d(u) = Phi(-u) - u phi(u). Absolute error
// under 1e-6 for results stored as f32, 8e-5 for bf16.
template <typename T>
HWY_INLINE FloatVec GeluDerivative(FloatTag df, FloatVec x) {
  static constexpr float kPrecise[] = {
      -0.01637490252f, 0.09887910547f, -0.2253286797f, 0.1410999346f,
      0.3801689029f,   -0.9269923045f, 0.6472385636f,  0.5166098574f,
      -1.286137966f,   0.4941691157f,  0.8608990744f,  -0.7649373687f,
      -0.2672403302f,  0.3950031915f,  0.03179065484f, -0.07881643654f};
  static constexpr float kShort[] = {
      -0.05914771557f, 0.1602617651f,  -0.03447726741f, -0.3988054693f, 0.5499895811f,
      0.01820212044f,  -0.4672966003f, 0.1377694607f,   0.1362052858f,  -0.04219234735f};
  const FloatVec tail = [&]() HWY_ATTR {
    if constexpr (std::is_same_v<T, BF16>) {
      return simd_internal::NormalTail(df, x, 4.5f, kShort);
    } else {
      return simd_internal::NormalTail(df, x, 5.75f, kPrecise);
    }
  }();
  return hn::IfThenElse(hn::Lt(x, hn::Zero(df)), tail, hn::Sub(hn::Set(df, 1.0f), tail));
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_TENSOR_SIMD_INL_H_
