// Sums over the neighbourhood of every position of a map, with positions of a row in the lanes of
// a vector: a neighbour is the same row, or another, read a few floats further.
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_ATTENTION_AGGREGATED_NEIGHBOURS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_AGGREGATED_NEIGHBOURS_INL_H_
#undef TESSERA_ATTENTION_AGGREGATED_NEIGHBOURS_INL_H_
#else
#define TESSERA_ATTENTION_AGGREGATED_NEIGHBOURS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "hwy/highway.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

// How rows of a map lie in memory: channel after channel, with `pad` zeros before and after the
// positions of each, whole vectors both.
struct RowLayout {
  int64_t pad;
  int64_t width;   // whole vectors
  int64_t height;  // of the map
  int64_t capacity;

  int64_t stride() const { return width + 2 * pad; }
  int64_t floats(int64_t channels) const { return (capacity + 1) * channels * stride(); }
};

// The last `capacity` rows of a map. Rows outside of the map are zero.
class RowRing {
 public:
  // `data`: layout.floats(channels) floats.
  RowRing(const RowLayout& layout, int64_t channels, float* data)
      : layout_(layout), channels_(channels), data_(data) {
    std::fill_n(data, layout.floats(channels), 0.0f);
  }
  // Position 0 of channel 0; channels are stride() apart.
  float* At(int64_t y) const {
    const bool inside = y >= 0 && y < layout_.height;
    const int64_t place = inside ? y % layout_.capacity : layout_.capacity;
    return data_ + place * channels_ * layout_.stride() + layout_.pad;
  }
  int64_t stride() const { return layout_.stride(); }

 private:
  RowLayout layout_;
  int64_t channels_;
  float* data_;
};

// A rectangle of slots of a neighbourhood, small enough for a vector of each to stay in registers.
template <int kHeight, int kWidth>
struct SlotBlock {
  static constexpr int kRows = kHeight;
  static constexpr int kColumns = kWidth;
};

// Calls fn(block, first row, first column) for blocks that cover window x window slots.
template <typename Fn>
HWY_INLINE void ForEachSlotBlock(int64_t window, const Fn& fn) {
  if (window == 3) return fn(SlotBlock<3, 3>(), 0, 0);
  for (int64_t row = 0; row < window; ++row) {
    int64_t column = 0;
    for (; column + 4 <= window; column += 4) fn(SlotBlock<1, 4>(), row, column);
    for (; column < window; ++column) fn(SlotBlock<1, 1>(), row, column);
  }
}

// The neighbours of the vector of positions from (y, x). Seen from a query they are keys, slot (i,
// j) at (y + i - radius, x + j - radius); seen from a key (`kMirrored`) they are queries, in the
// opposite direction.
template <bool kMirrored>
struct Neighbours {
  const RowRing& rows;
  int64_t window;
  int64_t y, x;

  // Row i of the slots, at column j.
  HWY_INLINE const float* At(int64_t i, int64_t j) const { return At(rows, i, j); }
  HWY_INLINE const float* At(const RowRing& of, int64_t i, int64_t j) const {
    const int64_t dy = i - window / 2, dx = j - window / 2;
    return kMirrored ? of.At(y - dy) + x - dx : of.At(y + dy) + x + dx;
  }
  // One column on.
  static constexpr int64_t kStep = kMirrored ? -1 : 1;
};

// products[slot * stride] = the sum over channels of a[c * stride] times channel c of the
// neighbour.
HWY_INLINE void DotNeighbours(const float* HWY_RESTRICT a, int64_t stride, int64_t channels,
                              const Neighbours<false>& neighbours, float* HWY_RESTRICT products) {
  const FloatTag df;
  const int64_t window = neighbours.window, row_stride = neighbours.rows.stride();
  ForEachSlotBlock(window, [=](auto block, int64_t row, int64_t column) HWY_ATTR {
    constexpr int kRows = decltype(block)::kRows, kColumns = decltype(block)::kColumns;
    const float* b[kRows];
    FloatVec sums[kRows][kColumns];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      b[r] = neighbours.At(row + r, column);
#pragma GCC unroll 4
      for (int k = 0; k < kColumns; ++k) sums[r][k] = hn::Zero(df);
    }
    for (int64_t c = 0; c < channels; ++c) {
      const FloatVec a_c = hn::Load(df, a + c * stride);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int k = 0; k < kColumns; ++k) {
          sums[r][k] = hn::MulAdd(a_c, hn::LoadU(df, b[r] + c * row_stride + k), sums[r][k]);
        }
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int k = 0; k < kColumns; ++k) {
        hn::Store(sums[r][k], df, products + ((row + r) * window + column + k) * stride);
      }
    }
  });
}

// to[c * to_stride] += the sum over slots of weight(slot, i, j) times channel c of neighbour (i,
// j).
template <bool kMirrored, typename Weight>
HWY_INLINE void CombineNeighbours(const Neighbours<kMirrored>& neighbours, int64_t channels,
                                  const Weight& weight, float* HWY_RESTRICT to, int64_t to_stride) {
  const FloatTag df;
  const int64_t window = neighbours.window, row_stride = neighbours.rows.stride();
  ForEachSlotBlock(window, [=, &weight](auto block, int64_t row, int64_t column) HWY_ATTR {
    constexpr int kRows = decltype(block)::kRows, kColumns = decltype(block)::kColumns;
    const float* b[kRows];
    FloatVec weights[kRows][kColumns];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      b[r] = neighbours.At(row + r, column);
#pragma GCC unroll 4
      for (int k = 0; k < kColumns; ++k) {
        weights[r][k] =
            weight((row + r) * window + column + k, row + r, static_cast<int64_t>(column + k));
      }
    }
    for (int64_t c = 0; c < channels; ++c) {
      FloatVec sum = hn::Load(df, to + c * to_stride);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int k = 0; k < kColumns; ++k) {
          const float* at = b[r] + c * row_stride + k * Neighbours<kMirrored>::kStep;
          sum = hn::MulAdd(weights[r][k], hn::LoadU(df, at), sum);
        }
      }
      hn::Store(sum, df, to + c * to_stride);
    }
  });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_ATTENTION_AGGREGATED_NEIGHBOURS_INL_H_
