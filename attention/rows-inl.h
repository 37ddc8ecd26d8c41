// Rows of f32 or bf16 memory to and from f32 tiles, whose rows are whole vectors: what lies past
// the logical width of a tile is zero.
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_ATTENTION_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_ROWS_INL_H_
#undef TESSERA_ATTENTION_ROWS_INL_H_
#else
#define TESSERA_ATTENTION_ROWS_INL_H_
#endif

#include <cstdint>

#include "hwy/highway.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

// `n` floats rounded up to whole vectors.
HWY_INLINE int64_t RoundToVectors(int64_t n) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(FloatTag()));
  return (n + lanes - 1) / lanes * lanes;
}

// One row of n values, times `factor`, padded with zeros up to `padded`.
template <typename T>
HWY_INLINE void LoadRow(const T* from, int64_t n, int64_t padded, float factor,
                        float* HWY_RESTRICT to) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  const auto vector_factor = hn::Set(df, factor);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    hn::Store(hn::Mul(LoadF32(df, from + i), vector_factor), df, to + i);
  if (i < padded) hn::Store(hn::Mul(LoadF32N(df, from + i, n - i), vector_factor), df, to + i);
}

template <typename T>
HWY_INLINE void StoreRow(const float* HWY_RESTRICT from, int64_t n, float factor, T* to) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  const auto vector_factor = hn::Set(df, factor);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    StoreF32(hn::Mul(hn::Load(df, from + i), vector_factor), df, to + i);
  if (i < n) StoreF32N(hn::Mul(hn::Load(df, from + i), vector_factor), df, to + i, n - i);
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_ATTENTION_ROWS_INL_H_
