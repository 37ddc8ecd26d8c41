// Softmax of the rows of a tile, forward and backward, in base 2: log2(e) is part of the scale of
// the logits, so that the exponential needs no range reduction by ln(2).
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_ATTENTION_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_SOFTMAX_INL_H_
#undef TESSERA_ATTENTION_SOFTMAX_INL_H_
#else
#define TESSERA_ATTENTION_SOFTMAX_INL_H_
#endif

#include <cstdint>
#include <numbers>

#include "attention/small_product-inl.h"
#include "hwy/highway.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

inline constexpr float kLog2E = std::numbers::log2e_v<float>;

// 2^x for x <= 0, relative error 2e-7; at least 2^-126. NaN stays NaN. Two thirds of the
// instructions of Exp().
HWY_INLINE FloatVec Exp2NonPositive(FloatTag df, FloatVec x) {
  const hn::RebindToUnsigned<FloatTag> du;
  // Adding it leaves round(x) + 127 in the low bits of the sum.
  const FloatVec round = hn::Set(df, 12582912.0f + 127.0f);
  // On x86 a NaN in the second operand wins.
  const FloatVec clamped = hn::Max(hn::Set(df, -126.0f), x);
  const FloatVec biased = hn::Add(clamped, round);
  const FloatVec f = hn::Sub(clamped, hn::Sub(biased, round));
  // Minimax polynomial of 2^f on [-1/2, 1/2].
  FloatVec p = hn::MulAdd(hn::Set(df, 0.001327647217f), f, hn::Set(df, 0.009675541331f));
  p = hn::MulAdd(p, f, hn::Set(df, 0.05550713273f));
  p = hn::MulAdd(p, f, hn::Set(df, 0.2402211972f));
  p = hn::MulAdd(p, f, hn::Set(df, 0.6931469671f));
  p = hn::MulAdd(p, f, hn::Set(df, 1.000000072f));
  return hn::Mul(p, hn::BitCast(df, hn::ShiftLeft<23>(hn::BitCast(du, biased))));
}

// The largest of n values.
HWY_INLINE float MaxOfRow(const float* HWY_RESTRICT row, int64_t n) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  FloatVec max = hn::Set(df, row[0]);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) max = hn::Max(max, hn::Load(df, row + j));
  if (j < n) {
    const auto in_row = hn::FirstN(df, static_cast<size_t>(n - j));
    max = hn::IfThenElse(in_row, hn::Max(max, hn::Load(df, row + j)), max);
  }
  return MaxF32(df, max);
}

// 2^(scale (x - max)) in place for the n values of each row, zeros from there to the end of the
// last vector; inverse_sums[i] is 1 / sum of row i. The maxima are a pass of their own, since their
// latency would not overlap with the exponentials'.
HWY_NOINLINE inline void Exp2Rows(int64_t rows, int64_t n, int64_t stride, float scale,
                                  float* HWY_RESTRICT x, float* HWY_RESTRICT inverse_sums) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  const int64_t last = RoundToVectors(n) - lanes;
  const auto in_row = hn::FirstN(df, static_cast<size_t>(n - last));
  const FloatVec scales = hn::Set(df, scale);
  for (int64_t i = 0; i < rows; ++i) inverse_sums[i] = MaxOfRow(x + i * stride, n);
  for (int64_t i = 0; i < rows; ++i) {
    float* HWY_RESTRICT row = x + i * stride;
    const FloatVec max = hn::Set(df, scale * inverse_sums[i]);
    FloatVec sum = hn::Zero(df);
    for (int64_t j = 0; j < last; j += lanes) {
      const FloatVec e = Exp2NonPositive(df, hn::MulSub(scales, hn::Load(df, row + j), max));
      sum = hn::Add(sum, e);
      hn::Store(e, df, row + j);
    }
    const FloatVec e = Exp2NonPositive(df, hn::MulSub(scales, hn::Load(df, row + last), max));
    const FloatVec kept = hn::IfThenElseZero(in_row, e);
    hn::Store(kept, df, row + last);
    inverse_sums[i] = 1.0f / SumF32(df, hn::Add(sum, kept));
  }
}

// p *= inverse_sum, and d_row becomes the gradient of the logits, p * (d_row - sum_j p d_row).
// `padded_n` is a whole number of vectors; p is zero in the padding.
inline void SoftmaxBackwardRow(float inverse_sum, int64_t padded_n, float* HWY_RESTRICT p,
                               float* HWY_RESTRICT d_row) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  const FloatVec vector_inverse = hn::Set(df, inverse_sum);
  FloatVec dot = hn::Zero(df);
  for (int64_t j = 0; j < padded_n; j += lanes) {
    const FloatVec p_j = hn::Mul(hn::Load(df, p + j), vector_inverse);
    hn::Store(p_j, df, p + j);
    dot = hn::MulAdd(p_j, hn::Load(df, d_row + j), dot);
  }
  dot = hn::SumOfLanes(df, dot);
  for (int64_t j = 0; j < padded_n; j += lanes) {
    hn::Store(hn::Mul(hn::Load(df, p + j), hn::Sub(hn::Load(df, d_row + j), dot)), df, d_row + j);
  }
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_ATTENTION_SOFTMAX_INL_H_
