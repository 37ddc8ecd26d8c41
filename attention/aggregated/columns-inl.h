// Tiles whose columns are positions of a map and whose rows are channels or keys: norms and softmax
// go down the columns, one position per lane, without a sum over lanes.
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_ATTENTION_AGGREGATED_COLUMNS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_AGGREGATED_COLUMNS_INL_H_
#undef TESSERA_ATTENTION_AGGREGATED_COLUMNS_INL_H_
#else
#define TESSERA_ATTENTION_AGGREGATED_COLUMNS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "attention/rows-inl.h"
#include "attention/softmax-inl.h"
#include "hwy/highway.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

// The smallest norm that a vector is divided by.
inline constexpr float kMinNorm = 1e-12f;
// What stands for minus infinity in logits.
inline constexpr float kMaskedLogit = -1e30f;

// `n` rows of d values, `stride` elements apart, to f32 rows of whole vectors, and zero rows up to
// `padded_n`.
template <typename T>
void LoadRows(const T* from, int64_t stride, int64_t n, int64_t padded_n, int64_t d, float* to) {
  const int64_t to_stride = RoundToVectors(d);
  for (int64_t i = 0; i < n; ++i) {
    LoadRow(from + i * stride, d, to_stride, 1.0f, to + i * to_stride);
  }
  std::fill(to + n * to_stride, to + padded_n * to_stride, 0.0f);
}

// x[c][column] /= its column's L2 norm over c < channels; the inverse norms go to `inverses`.
inline void NormalizeColumns(int64_t channels, int64_t columns, int64_t stride,
                             float* HWY_RESTRICT x, float* HWY_RESTRICT inverses) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (int64_t column = 0; column < columns; column += lanes) {
    float* p = x + column;
    FloatVec squares = hn::Zero(df), odd_squares = hn::Zero(df);
    int64_t c = 0;
    for (; c + 2 <= channels; c += 2) {
      const FloatVec a = hn::Load(df, p + c * stride), b = hn::Load(df, p + (c + 1) * stride);
      squares = hn::MulAdd(a, a, squares);
      odd_squares = hn::MulAdd(b, b, odd_squares);
    }
    if (c < channels) {
      const FloatVec a = hn::Load(df, p + c * stride);
      squares = hn::MulAdd(a, a, squares);
    }
    const FloatVec norm = hn::Sqrt(hn::Add(squares, odd_squares));
    const FloatVec inverse = hn::Div(hn::Set(df, 1.0f), hn::Max(norm, hn::Set(df, kMinNorm)));
    hn::Store(inverse, df, inverses + column);
    for (c = 0; c < channels; ++c) {
      hn::Store(hn::Mul(hn::Load(df, p + c * stride), inverse), df, p + c * stride);
    }
  }
}

// The gradient of columns before their normalisation: d_x = (d_x - x (x . d_x)) inverse; without
// the projection for a column whose norm was too small to divide by.
inline void NormalizeColumnsBackward(int64_t channels, int64_t columns, int64_t stride,
                                     const float* HWY_RESTRICT x, int64_t x_stride,
                                     const float* HWY_RESTRICT inverses, float* HWY_RESTRICT d_x) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (int64_t column = 0; column < columns; column += lanes) {
    const float* p = x + column;
    float* d = d_x + column;
    FloatVec dot = hn::Zero(df);
    for (int64_t c = 0; c < channels; ++c) {
      dot = hn::MulAdd(hn::Load(df, p + c * x_stride), hn::Load(df, d + c * stride), dot);
    }
    const FloatVec inverse = hn::Load(df, inverses + column);
    dot = hn::IfThenElseZero(hn::Lt(inverse, hn::Set(df, 1.0f / kMinNorm)), dot);
    for (int64_t c = 0; c < channels; ++c) {
      const FloatVec x_c = hn::Load(df, p + c * x_stride);
      const FloatVec d_c = hn::Load(df, d + c * stride);
      hn::Store(hn::Mul(hn::NegMulAdd(x_c, dot, d_c), inverse), df, d + c * stride);
    }
  }
}

// The same for rows of `stride` floats, whole vectors, zero past their channels.
inline void NormalizeRows(int64_t rows, int64_t stride, float* HWY_RESTRICT x,
                          float* HWY_RESTRICT inverses) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (int64_t i = 0; i < rows; ++i) {
    float* row = x + i * stride;
    FloatVec squares = hn::Zero(df);
    for (int64_t c = 0; c < stride; c += lanes) {
      const FloatVec v = hn::Load(df, row + c);
      squares = hn::MulAdd(v, v, squares);
    }
    inverses[i] = 1.0f / std::max(std::sqrt(SumF32(df, squares)), kMinNorm);
    const FloatVec inverse = hn::Set(df, inverses[i]);
    for (int64_t c = 0; c < stride; c += lanes) {
      hn::Store(hn::Mul(hn::Load(df, row + c), inverse), df, row + c);
    }
  }
}

inline void NormalizeRowsBackward(int64_t rows, int64_t stride, const float* HWY_RESTRICT x,
                                  const float* HWY_RESTRICT inverses, float* HWY_RESTRICT d_x) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (int64_t i = 0; i < rows; ++i) {
    const float* row = x + i * stride;
    float* d = d_x + i * stride;
    FloatVec dot = hn::Zero(df);
    for (int64_t c = 0; c < stride; c += lanes) {
      dot = hn::MulAdd(hn::Load(df, row + c), hn::Load(df, d + c), dot);
    }
    dot = hn::SumOfLanes(df, dot);
    if (inverses[i] >= 1.0f / kMinNorm) dot = hn::Zero(df);
    const FloatVec inverse = hn::Set(df, inverses[i]);
    for (int64_t c = 0; c < stride; c += lanes) {
      const FloatVec d_c = hn::NegMulAdd(hn::Load(df, row + c), dot, hn::Load(df, d + c));
      hn::Store(hn::Mul(d_c, inverse), df, d + c);
    }
  }
}

// Softmax down the columns of logits [rows, stride], in place. Masked logits give zeros.
inline void SoftmaxColumns(int64_t rows, int64_t columns, int64_t stride, float* HWY_RESTRICT x) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  const FloatVec log2_e = hn::Set(df, kLog2E), masked = hn::Set(df, kMaskedLogit);
  for (int64_t column = 0; column < columns; column += lanes) {
    float* p = x + column;
    FloatVec max = masked, odd_max = masked;
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2) {
      max = hn::Max(max, hn::Load(df, p + r * stride));
      odd_max = hn::Max(odd_max, hn::Load(df, p + (r + 1) * stride));
    }
    if (r < rows) max = hn::Max(max, hn::Load(df, p + r * stride));
    const FloatVec largest = hn::Mul(hn::Max(max, odd_max), log2_e);
    FloatVec sum = hn::Zero(df);
    for (r = 0; r < rows; ++r) {
      const FloatVec logit = hn::Load(df, p + r * stride);
      const FloatVec e = Exp2NonPositive(df, hn::MulSub(logit, log2_e, largest));
      const FloatVec kept = hn::IfThenZeroElse(hn::Le(logit, masked), e);
      sum = hn::Add(sum, kept);
      hn::Store(kept, df, p + r * stride);
    }
    const FloatVec inverse = hn::Div(hn::Set(df, 1.0f), sum);
    for (r = 0; r < rows; ++r) {
      hn::Store(hn::Mul(hn::Load(df, p + r * stride), inverse), df, p + r * stride);
    }
  }
}

// The gradient of logits, in place of that of probabilities p: p (d - sum of p d), the sum down the
// column.
inline void SoftmaxColumnsBackward(int64_t rows, int64_t columns, int64_t stride,
                                   const float* HWY_RESTRICT p, float* HWY_RESTRICT d) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (int64_t column = 0; column < columns; column += lanes) {
    FloatVec dot = hn::Zero(df), odd_dot = hn::Zero(df);
    int64_t at = column;
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2, at += 2 * stride) {
      dot = hn::MulAdd(hn::Load(df, p + at), hn::Load(df, d + at), dot);
      odd_dot = hn::MulAdd(hn::Load(df, p + at + stride), hn::Load(df, d + at + stride), odd_dot);
    }
    if (r < rows) dot = hn::MulAdd(hn::Load(df, p + at), hn::Load(df, d + at), dot);
    dot = hn::Add(dot, odd_dot);
    for (r = 0, at = column; r < rows; ++r, at += stride) {
      hn::Store(hn::Mul(hn::Load(df, p + at), hn::Sub(hn::Load(df, d + at), dot)), df, d + at);
    }
  }
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_ATTENTION_AGGREGATED_COLUMNS_INL_H_
