// The two passes of Resize, compiled once per instruction set. All arithmetic is integer, so every
// set gives the same bits. Pixels are bytes, weights two 16-bit halves, sums 32 bits: one
// multiply-add instruction takes two taps.
#include <vector>

#include "data/resample_weights.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "data/resample_simd.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::internal {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Bytes = hn::ScalableTag<uint8_t>;
using Halves = hn::ScalableTag<int16_t>;
using Words = hn::ScalableTag<int32_t>;
using BytesV = hn::Vec<Bytes>;
using WordsV = hn::Vec<Words>;

// The sums of high and low products of one vector of outputs.
struct Sums {
  WordsV high;
  WordsV low;

  HWY_INLINE void Clear() { high = low = hn::Zero(Words()); }
  // `pixels` holds a pair of taps, widened to 16 bits, in each 32-bit lane.
  HWY_INLINE void Add(BytesV pixels, WordsV high_weights, WordsV low_weights) {
    const auto p = hn::BitCast(Halves(), pixels);
    WordsV unused = hn::Zero(Words());
    high = hn::ReorderWidenMulAccumulate(Words(), p, hn::BitCast(Halves(), high_weights), high,
                                         unused);
    low =
        hn::ReorderWidenMulAccumulate(Words(), p, hn::BitCast(Halves(), low_weights), low, unused);
  }
  HWY_INLINE WordsV Rounded() const {
    const auto half = hn::Set(Words(), 1 << (kWeightBits - 1));
    const auto sum = hn::Add(hn::Add(hn::ShiftLeft<kLowBits>(high), low), half);
    return hn::ShiftRight<kWeightBits>(sum);
  }
};

constexpr int kRowsPerVector = hn::MaxLanes(Bytes()) / 16;
constexpr int kVectors = kRowsPerVector >= 4 ? 1 : 2;
constexpr int kRowsAtOnce = kVectors * kRowsPerVector;

// 16 bytes from each of `kRows` rows, one row per 128-bit block.
template <int kRows>
HWY_INLINE auto LoadRows(const uint8_t* const* rows, int64_t at) {
  const hn::FixedTag<uint8_t, 16 * kRows> d;
  if constexpr (kRows == 1) {
    return hn::LoadU(d, rows[0] + at);
  } else {
    const auto lower = LoadRows<kRows / 2>(rows, at);
    return hn::Combine(d, LoadRows<kRows / 2>(rows + kRows / 2, at), lower);
  }
}

// One output column of kRowsAtOnce rows.
HWY_INLINE void FilterPixel(const uint8_t* const* rows, int64_t first, int64_t count,
                            const int32_t* high, const int32_t* low, uint8_t* const* out,
                            int64_t x) {
  constexpr uint8_t kZero = 0x80;
  // A block holds 5 pixels and a byte: taps 0 and 1, then 2 and 3, become pairs of 16-bit r, g and
  // b.
  alignas(16) static constexpr uint8_t kFirstPair[16] = {
      0, kZero, 3, kZero, 1, kZero, 4, kZero, 2, kZero, 5, kZero, kZero, kZero, kZero, kZero};
  alignas(16) static constexpr uint8_t kSecondPair[16] = {
      6, kZero, 9, kZero, 7, kZero, 10, kZero, 8, kZero, 11, kZero, kZero, kZero, kZero, kZero};
  const auto first_pair = hn::LoadDup128(Bytes(), kFirstPair);
  const auto second_pair = hn::LoadDup128(Bytes(), kSecondPair);
  Sums sums[kVectors];
  for (Sums& s : sums) s.Clear();
  for (int64_t k = 0; k < count; k += 4) {
    const auto high0 = hn::Set(Words(), high[k / 2]);
    const auto low0 = hn::Set(Words(), low[k / 2]);
    const auto high1 = hn::Set(Words(), high[k / 2 + 1]);
    const auto low1 = hn::Set(Words(), low[k / 2 + 1]);
    for (int v = 0; v < kVectors; ++v) {
      const auto pixels = LoadRows<kRowsPerVector>(rows + v * kRowsPerVector, 3 * (first + k));
      sums[v].Add(hn::TableLookupBytesOr0(pixels, first_pair), high0, low0);
      sums[v].Add(hn::TableLookupBytesOr0(pixels, second_pair), high1, low1);
    }
  }
  for (int v = 0; v < kVectors; ++v) {
    alignas(16) uint8_t rgbx[4 * kRowsPerVector];
    hn::Store(hn::DemoteTo(hn::Rebind<uint8_t, Words>(), sums[v].Rounded()),
              hn::Rebind<uint8_t, Words>(), rgbx);
    for (int r = 0; r < kRowsPerVector; ++r) {
      hwy::CopyBytes<4>(rgbx + 4 * r, out[v * kRowsPerVector + r] + 3 * x);
    }
  }
}

void Rows(const ImageView& source, const ResampleWeights& w, uint8_t* out, int64_t out_stride) {
  std::vector<uint8_t> spare(out_stride);
  for (int64_t y = 0; y < source.height; y += kRowsAtOnce) {
    const uint8_t* in_rows[kRowsAtOnce];
    uint8_t* out_rows[kRowsAtOnce];
    for (int64_t r = 0; r < kRowsAtOnce; ++r) {
      const bool inside = y + r < source.height;
      in_rows[r] = source.row(inside ? y + r : y);
      out_rows[r] = inside ? out + (y + r) * out_stride : spare.data();
    }
    for (int64_t x = 0; x < w.outputs(); ++x) {
      FilterPixel(in_rows, w.first[x], w.count[x], &w.high[x * w.pairs], &w.low[x * w.pairs],
                  out_rows, x);
    }
  }
}

// Rounded sums of the four quarters of each block, clamped and packed back to bytes in their order.
HWY_INLINE BytesV PackBytes(const Sums* quarters) {
  alignas(16) static constexpr uint8_t kEvenToLow[16] = {
      0, 2, 4, 6, 8, 10, 12, 14, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80};
  alignas(16) static constexpr uint8_t kEvenToHigh[16] = {
      0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 2, 4, 6, 8, 10, 12, 14};
  const auto clamp = [](auto v) HWY_ATTR {
    return hn::BitCast(Bytes(),
                       hn::Min(hn::Max(v, hn::Zero(Halves())), hn::Set(Halves(), int16_t{255})));
  };
  const auto low =
      clamp(hn::ReorderDemote2To(Halves(), quarters[0].Rounded(), quarters[1].Rounded()));
  const auto high =
      clamp(hn::ReorderDemote2To(Halves(), quarters[2].Rounded(), quarters[3].Rounded()));
  return hn::Or(hn::TableLookupBytesOr0(low, hn::LoadDup128(Bytes(), kEvenToLow)),
                hn::TableLookupBytesOr0(high, hn::LoadDup128(Bytes(), kEvenToHigh)));
}

void Columns(const ImageView& source, const ResampleWeights& w, Image* out) {
  const Bytes d8;
  const auto zero = hn::Zero(d8);
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d8));
  for (int64_t y = 0; y < w.outputs(); ++y) {
    const int64_t count = w.count[y];
    const uint8_t* top = source.row(w.first[y]);
    const int32_t* high = &w.high[y * w.pairs];
    const int32_t* low = &w.low[y * w.pairs];
    for (int64_t x = 0; x < 3 * source.width; x += lanes) {
      Sums quarters[4];
      for (Sums& q : quarters) q.Clear();
      for (int64_t k = 0; k < count; k += 2) {
        const auto a = hn::LoadU(d8, top + k * source.stride + x);
        const auto b = k + 1 < count ? hn::LoadU(d8, top + (k + 1) * source.stride + x) : zero;
        const auto lower = hn::InterleaveLower(d8, a, b);
        const auto upper = hn::InterleaveUpper(d8, a, b);
        const auto high_k = hn::Set(Words(), high[k / 2]);
        const auto low_k = hn::Set(Words(), low[k / 2]);
        quarters[0].Add(hn::InterleaveLower(d8, lower, zero), high_k, low_k);
        quarters[1].Add(hn::InterleaveUpper(d8, lower, zero), high_k, low_k);
        quarters[2].Add(hn::InterleaveLower(d8, upper, zero), high_k, low_k);
        quarters[3].Add(hn::InterleaveUpper(d8, upper, zero), high_k, low_k);
      }
      hn::StoreU(PackBytes(quarters), d8, out->row(y) + x);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::internal
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::internal {

HWY_EXPORT(Rows);
HWY_EXPORT(Columns);

void ResampleRows(const ImageView& source, const ResampleWeights& weights, uint8_t* out,
                  int64_t out_stride) {
  HWY_DYNAMIC_DISPATCH(Rows)(source, weights, out, out_stride);
}

// Rows are written in their order, so what a vector store puts past a row's end is overwritten by
// the next row.
void ResampleColumns(const ImageView& source, const ResampleWeights& weights, Image* out) {
  HWY_DYNAMIC_DISPATCH(Columns)(source, weights, out);
}

}  // namespace tessera::internal
#endif
