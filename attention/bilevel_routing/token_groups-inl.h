// Products of attention over tokens packed in groups of four, so that a group can be named in a
// list and used where it lies: no tile of the chosen keys is ever put together.
//
// A group is [channel][4 tokens]: a vector of logits holds four keys for each of its lanes / 4
// queries, whatever the length of a vector, and no lane is idle when a region has only four tokens.
// Logits are [group of the list][query vector][query][4 keys].
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_ATTENTION_TOKEN_GROUPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_TOKEN_GROUPS_INL_H_
#undef TESSERA_ATTENTION_TOKEN_GROUPS_INL_H_
#else
#define TESSERA_ATTENTION_TOKEN_GROUPS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "attention/rows-inl.h"
#include "attention/softmax-inl.h"
#include "hwy/highway.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

constexpr int64_t kGroup = 4;
constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(FloatTag()));
constexpr int64_t kVectorQueries = kLanes / kGroup;
constexpr int64_t kMaxVectors = 4;  // of queries that are worked on together

// A list of groups: number list[i] lies at data + list[i] * stride, as [channel][4], or as rows
// [4][RoundToVectors(channels)].
struct GroupList {
  const int32_t* list;
  int64_t size;
};

// Rows of four tokens, or null where there is none, as a group of n channels (rounded up to whole
// vectors).
template <typename T>
HWY_INLINE void PackGroup(const T* const (&rows)[kGroup], int64_t n, float* to) {
  const FloatTag df;
  ForEachVector(df, n, [&](int64_t c, auto lanes) HWY_ATTR {
    FloatVec v[kGroup];
    for (int r = 0; r < kGroup; ++r) {
      v[r] = rows[r] == nullptr ? hn::Zero(df) : LoadF32N(df, rows[r] + c, lanes);
    }
    hn::StoreInterleaved4(v[0], v[1], v[2], v[3], df, to + kGroup * c);
  });
}

// The queries of vector `index` at one channel, each in four lanes.
class QueryVector {
 public:
  QueryVector(const float* groups, int64_t group_floats, int64_t index)
      : data_(groups + index * kVectorQueries / kGroup * group_floats), lanes_(Lanes(index)) {}
  HWY_INLINE FloatVec At(int64_t channel) const {
    return hn::TableLookupLanes(hn::LoadDup128(FloatTag(), data_ + kGroup * channel), lanes_);
  }

 private:
  using Indices = decltype(hn::SetTableIndices(FloatTag(), static_cast<const int32_t*>(nullptr)));
  static Indices Lanes(int64_t index) {
    HWY_ALIGN int32_t lanes[kLanes];
    for (int64_t i = 0; i < kLanes; ++i) {
      lanes[i] = static_cast<int32_t>(index * kVectorQueries % kGroup + i / kGroup);
    }
    return hn::SetTableIndices(FloatTag(), lanes);
  }
  const float* data_;
  Indices lanes_;
};

constexpr int GroupsAtOnce(int vectors) {
#if HWY_CAP_GE512 || HWY_ARCH_ARM
  return vectors <= 2 ? 8 : 4;
#else
  return vectors == 1 ? 8 : vectors == 2 ? 4 : 2;
#endif
}

template <int kVectors, int kGroups>
HWY_INLINE void LogitsBlock(int64_t depth, const QueryVector* queries,
                            const float* const (&keys)[kGroups], float* out) {
  const FloatTag df;
  FloatVec acc[kGroups][kVectors];
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) acc[g][v] = hn::Zero(df);
  }
  for (int64_t c = 0; c < depth; ++c) {
    FloatVec q[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) q[v] = queries[v].At(c);
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) {
      const FloatVec k = hn::LoadDup128(df, keys[g] + kGroup * c);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[g][v] = hn::MulAdd(q[v], k, acc[g][v]);
    }
  }
#pragma GCC unroll 8
  for (int g = 0; g < kGroups; ++g) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) hn::Store(acc[g][v], df, out + (g * kVectors + v) * kLanes);
  }
}

template <int kVectors>
void LogitsOfVectors(int64_t depth, const float* queries, int64_t first_vector, const float* keys,
                     int64_t group_floats, const GroupList& groups, float* out) {
  constexpr int kGroups = GroupsAtOnce(kVectors);
  const auto vector = [&](int v) { return QueryVector(queries, group_floats, first_vector + v); };
  const QueryVector q[kMaxVectors] = {vector(0), vector(kVectors > 1 ? 1 : 0),
                                      vector(kVectors > 2 ? 2 : 0), vector(kVectors > 3 ? 3 : 0)};
  int64_t i = 0;
  for (; i + kGroups <= groups.size; i += kGroups) {
    const float* k[kGroups];
    for (int g = 0; g < kGroups; ++g) k[g] = keys + groups.list[i + g] * group_floats;
    LogitsBlock<kVectors, kGroups>(depth, q, k, out + i * kVectors * kLanes);
  }
  for (; i < groups.size; ++i) {
    const float* const k[1] = {keys + groups.list[i] * group_floats};
    LogitsBlock<kVectors, 1>(depth, q, k, out + i * kVectors * kLanes);
  }
}

// out = q k^T for `vectors` query vectors, from first_vector on, and the keys of all listed groups.
inline void Logits(int64_t depth, const float* queries, int64_t first_vector, int64_t vectors,
                   const float* keys, int64_t group_floats, const GroupList& groups, float* out) {
  const auto run = vectors == 1   ? &LogitsOfVectors<1>
                   : vectors == 2 ? &LogitsOfVectors<2>
                   : vectors == 3 ? &LogitsOfVectors<3>
                                  : &LogitsOfVectors<4>;
  run(depth, queries, first_vector, keys, group_floats, groups, out);
}

template <int kVectors, int kColumns>
HWY_INLINE void WeightedRowsBlock(const float* weights, int64_t weights_stride, const float* rows,
                                  int64_t row_stride, const GroupList& groups, float* out) {
  constexpr int kQueries = kVectors * kVectorQueries;
  const FloatTag df;
  FloatVec acc[kQueries][kColumns];
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) acc[q][c] = hn::Zero(df);
  }
  for (int64_t i = 0; i < groups.size; ++i) {
    const float* row = rows + groups.list[i] * kGroup * row_stride;
    const float* w = weights + i * weights_stride;
    for (int k = 0; k < kGroup; ++k, row += row_stride, ++w) {
      FloatVec right[kColumns];
#pragma GCC unroll 2
      for (int c = 0; c < kColumns; ++c) right[c] = hn::Load(df, row + c * kLanes);
#pragma GCC unroll 8
      for (int q = 0; q < kQueries; ++q) {
        const FloatVec left = hn::Set(df, w[q * kGroup]);
#pragma GCC unroll 2
        for (int c = 0; c < kColumns; ++c) acc[q][c] = hn::MulAdd(left, right[c], acc[q][c]);
      }
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 2
    for (int c = 0; c < kColumns; ++c) hn::Store(acc[q][c], df, out + q * row_stride + c * kLanes);
  }
}

// out [queries, row_stride] = weights times the rows of the listed groups; weights are laid out as
// logits.
inline void WeightedRows(const float* weights, int64_t vectors, const float* rows,
                         int64_t row_stride, const GroupList& groups, float* out) {
  const int64_t stride = vectors * kLanes;
  for (int64_t v = 0; v < vectors;) {
    const bool two = v + 2 <= vectors;
    for (int64_t c = 0; c < row_stride;) {
      const bool wide = c + 2 * kLanes <= row_stride;
      const auto run = two ? (wide ? &WeightedRowsBlock<2, 2> : &WeightedRowsBlock<2, 1>)
                           : (wide ? &WeightedRowsBlock<1, 2> : &WeightedRowsBlock<1, 1>);
      run(weights + v * kLanes, stride, rows + c, row_stride, groups,
          out + v * kVectorQueries * row_stride + c);
      c += wide ? 2 * kLanes : kLanes;
    }
    v += two ? 2 : 1;
  }
}

// Adds to the rows of one group what `queries` tokens contribute: weights^T times their rows.
template <int kColumns>
HWY_INLINE void AddOuterBlock(const float* weights, const float* from, int64_t queries,
                              int64_t row_stride, float* rows) {
  const FloatTag df;
  FloatVec acc[kGroup][kColumns];
#pragma GCC unroll 4
  for (int k = 0; k < kGroup; ++k) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) acc[k][c] = hn::Load(df, rows + k * row_stride + c * kLanes);
  }
  for (int64_t q = 0; q < queries; ++q, weights += kGroup, from += row_stride) {
    FloatVec right[kColumns];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) right[c] = hn::Load(df, from + c * kLanes);
#pragma GCC unroll 4
    for (int k = 0; k < kGroup; ++k) {
      const FloatVec left = hn::Set(df, weights[k]);
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) acc[k][c] = hn::MulAdd(left, right[c], acc[k][c]);
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < kGroup; ++k) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) hn::Store(acc[k][c], df, rows + k * row_stride + c * kLanes);
  }
}

// The rows of the listed groups += weights^T from, from [queries, row_stride] of `vectors` query
// vectors.
inline void AddOuter(const float* weights, int64_t vectors, const float* from, int64_t row_stride,
                     const GroupList& groups, float* rows) {
  const int64_t queries = vectors * kVectorQueries;
  for (int64_t i = 0; i < groups.size; ++i) {
    float* to = rows + groups.list[i] * kGroup * row_stride;
    const float* w = weights + i * vectors * kLanes;
    int64_t c = 0;
    for (; c + 2 * kLanes <= row_stride; c += 2 * kLanes) {
      AddOuterBlock<2>(w, from + c, queries, row_stride, to + c);
    }
    if (c < row_stride) AddOuterBlock<1>(w, from + c, queries, row_stride, to + c);
  }
}

// In every lane, the result for the four lanes of its query.
HWY_INLINE FloatVec MaxOfQuery(FloatVec v) {
  v = hn::Max(v, hn::Shuffle2301(v));
  return hn::Max(v, hn::Shuffle1032(v));
}
HWY_INLINE FloatVec SumOfQuery(FloatVec v) {
  v = hn::Add(v, hn::Shuffle2301(v));
  return hn::Add(v, hn::Shuffle1032(v));
}

// Keys that a list of regions of `per_region` groups has in excess, behind the region's last token:
// `keys` < 4 of its last group count.
inline void MaskKeys(int64_t groups, int64_t per_region, int64_t vectors, int64_t keys,
                     float* logits) {
  const FloatTag df;
  HWY_ALIGN float bias[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) bias[i] = i % kGroup < keys ? 0.0f : -INFINITY;
  const FloatVec mask = hn::Load(df, bias);
  for (int64_t g = per_region - 1; g < groups; g += per_region) {
    for (int64_t v = 0; v < vectors; ++v) {
      float* p = logits + (g * vectors + v) * kLanes;
      hn::Store(hn::Add(hn::Load(df, p), mask), df, p);
    }
  }
}

// Logits to 2^(scale (x - max)); in every lane of inverse_sums [vectors, lanes], 1 / their sum over
// the keys of its query.
inline void ExpOfLogits(int64_t groups, int64_t vectors, float scale, float* logits,
                        float* inverse_sums) {
  const FloatTag df;
  const FloatVec scales = hn::Set(df, scale);
  const int64_t stride = vectors * kLanes;
  for (int64_t v = 0; v < vectors; ++v) {
    float* p = logits + v * kLanes;
    FloatVec max = hn::Load(df, p);
    for (int64_t g = 1; g < groups; ++g) max = hn::Max(max, hn::Load(df, p + g * stride));
    max = hn::Mul(scales, MaxOfQuery(max));
    FloatVec sum = hn::Zero(df);
    for (int64_t g = 0; g < groups; ++g) {
      const FloatVec x = hn::MulSub(scales, hn::Load(df, p + g * stride), max);
      const FloatVec e = Exp2NonPositive(df, x);
      sum = hn::Add(sum, e);
      hn::Store(e, df, p + g * stride);
    }
    hn::Store(hn::Div(hn::Set(df, 1.0f), SumOfQuery(sum)), df, inverse_sums + v * kLanes);
  }
}

// p *= inverse_sums, and d becomes the gradient of the logits, scale p (d - sum of p d).
inline void SoftmaxBackwardOfLogits(int64_t groups, int64_t vectors, float scale,
                                    const float* inverse_sums, float* p, float* d) {
  const FloatTag df;
  const FloatVec scales = hn::Set(df, scale);
  const int64_t stride = vectors * kLanes;
  for (int64_t v = 0; v < vectors; ++v, p += kLanes, d += kLanes) {
    const FloatVec inverse = hn::Load(df, inverse_sums + v * kLanes);
    FloatVec dot = hn::Zero(df);
    for (int64_t g = 0; g < groups; ++g) {
      const FloatVec x = hn::Mul(hn::Load(df, p + g * stride), inverse);
      hn::Store(x, df, p + g * stride);
      dot = hn::MulAdd(x, hn::Load(df, d + g * stride), dot);
    }
    dot = SumOfQuery(dot);
    for (int64_t g = 0; g < groups; ++g) {
      const FloatVec x = hn::Mul(scales, hn::Load(df, p + g * stride));
      hn::Store(hn::Mul(x, hn::Sub(hn::Load(df, d + g * stride), dot)), df, d + g * stride);
    }
  }
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_ATTENTION_TOKEN_GROUPS_INL_H_
