// How values lie in the tiles that SmallProduct multiplies: as f32, or, on processors with AVX-512
// BF16, as pairs of bf16 at twice the rate: an instruction multiplies two pairs and adds both
// products to an f32 sum.
//
// A pair takes the place of a float, so that sums need half as many. What is summed over decides
// what a pair is: two neighbours in a row (two channels of a token, as they lie in memory), or the
// same place of two neighbouring rows (one channel of two tokens). A tile of the second kind has
// half as many rows. A kernel written for any format says which of the two it needs; with f32 both
// are the same tile.
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_ATTENTION_FORMATS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_FORMATS_INL_H_
#undef TESSERA_ATTENTION_FORMATS_INL_H_
#else
#define TESSERA_ATTENTION_FORMATS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "attention/rows-inl.h"
#include "attention/small_product-inl.h"
#include "hwy/highway.h"
#include "tensor/simd-inl.h"

#undef TESSERA_BF16_PAIRS
#define TESSERA_BF16_PAIRS (HWY_TARGET == HWY_AVX3 && HWY_ARCH_X86_64)

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

struct FloatTiles {
  static HWY_INLINE FloatVec MulAdd(FloatVec a, FloatVec b, FloatVec sum) {
    return hn::MulAdd(a, b, sum);
  }
  // Number of elements, floats or pairs, that hold n values along the sums.
  static int64_t Depth(int64_t n) { return n; }
  // Row stride of a tile whose rows of n values are summed over.
  static int64_t Stride(int64_t n) { return RoundToVectors(n); }

  // One row of n values into such a tile.
  template <typename T>
  static HWY_INLINE void Load(const T* from, int64_t n, float* to) {
    LoadRow(from, n, Stride(n), 1.0f, to);
  }
  // The same values for sums over rows; `to` is memory for them, row stride RoundToVectors(n).
  static Factor AlongRows(const float* tile, int64_t /*rows*/, int64_t n, float* /*to*/) {
    return {tile, Stride(n)};
  }
  // f32 results of a product as factors of the next one, in their own place, or in `to`, which may
  // be that place too.
  static Factor FromFloats(float* tile, int64_t /*rows*/, int64_t stride) { return {tile, stride}; }
  static Factor AlongRowsFromFloats(float* tile, int64_t /*rows*/, int64_t stride, float* /*to*/) {
    return {tile, stride};
  }
};

#if TESSERA_BF16_PAIRS

// True if the processor has the instructions.
inline bool HasPairs() {
  static const bool has = __builtin_cpu_supports("avx512bf16") != 0;
  return has;
}

struct PairTiles {
  using HalfTag = hn::Rebind<uint16_t, FloatTag>;
  using HalfVec = hn::Vec<HalfTag>;

  // As assembly, because Highway's AVX3 does not have it.
  static HWY_INLINE FloatVec MulAdd(FloatVec a, FloatVec b, FloatVec sum) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.raw) : "v"(a.raw), "v"(b.raw));
    return sum;
  }
  static int64_t Depth(int64_t n) { return (n + 1) / 2; }
  static int64_t Stride(int64_t n) { return RoundToVectors(Depth(n)); }

  static HWY_INLINE void Load(const BF16* from, int64_t n, float* to) {
    const hn::ScalableTag<uint16_t> du16;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(du16));
    for (int64_t i = 0; i < 2 * Stride(n); i += lanes) {
      const size_t rest = static_cast<size_t>(std::clamp<int64_t>(n - i, 0, lanes));
      const auto v = hn::MaskedLoad(hn::FirstN(du16, rest), du16, &from[i].bits);
      hn::Store(v, du16, Halves(to) + i);
    }
  }
  static void Load(const float* from, int64_t n, float* to) {
    for (int64_t i = 0; i < 2 * Stride(n); ++i) Halves(to)[i] = BF16(i < n ? from[i] : 0.0f).bits;
  }
  static Factor AlongRows(const float* tile, int64_t rows, int64_t n, float* to) {
    const HalfTag dh;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(dh));
    const int64_t from_stride = 2 * Stride(n), to_stride = RoundToVectors(n);
    for (int64_t r = 0; r < rows; r += 2) {
      const uint16_t* low = Halves(tile) + r * from_stride;
      for (int64_t c = 0; c < to_stride; c += lanes) {
        const HalfVec high = r + 1 < rows ? hn::LoadU(dh, low + from_stride + c) : hn::Zero(dh);
        StorePairs(hn::LoadU(dh, low + c), high, to + r / 2 * to_stride + c);
      }
    }
    return {to, to_stride};
  }
  static Factor FromFloats(float* tile, int64_t rows, int64_t stride) {
    const FloatTag df;
    const HalfTag dh;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
    for (int64_t r = 0; r < rows; ++r) {
      float* row = tile + r * stride;
      for (int64_t c = 0; c < stride; c += lanes) {
        hn::StoreU(Round(hn::Load(df, row + c)), dh, Halves(row) + c);
      }
    }
    return {tile, stride};
  }
  static Factor AlongRowsFromFloats(float* tile, int64_t rows, int64_t stride, float* to) {
    const FloatTag df;
    const HalfTag dh;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
    for (int64_t r = 0; r < rows; r += 2) {
      const float* low = tile + r * stride;
      for (int64_t c = 0; c < stride; c += lanes) {
        const HalfVec high = r + 1 < rows ? Round(hn::Load(df, low + stride + c)) : hn::Zero(dh);
        StorePairs(Round(hn::Load(df, low + c)), high, to + r / 2 * stride + c);
      }
    }
    return {to, stride};
  }

 private:
  static HWY_INLINE uint16_t* Halves(float* p) { return reinterpret_cast<uint16_t*>(p); }
  static HWY_INLINE const uint16_t* Halves(const float* p) {
    return reinterpret_cast<const uint16_t*>(p);
  }
  static HWY_INLINE HalfVec Round(FloatVec v) {
    HalfVec rounded;
    asm("vcvtneps2bf16 %1, %0" : "=v"(rounded.raw) : "v"(v.raw));
    return rounded;
  }
  static HWY_INLINE void StorePairs(HalfVec low, HalfVec high, float* to) {
    const hn::RebindToUnsigned<FloatTag> du;
    const auto pairs = hn::Or(hn::PromoteTo(du, low), hn::ShiftLeft<16>(hn::PromoteTo(du, high)));
    hn::Store(hn::BitCast(FloatTag(), pairs), FloatTag(), to);
  }
};

#endif  // TESSERA_BF16_PAIRS

// Calls fn(FloatTiles()) or fn(PairTiles()), the better format for values of type T.
template <typename T, typename Fn>
HWY_INLINE void WithTileFormat(const Fn& fn) {
#if TESSERA_BF16_PAIRS
  if constexpr (kDTypeOf<T> == DType::kBF16) {
    if (HasPairs()) return fn(PairTiles());
  }
#endif
  fn(FloatTiles());
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_ATTENTION_FORMATS_INL_H_
