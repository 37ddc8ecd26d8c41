// Products of matrices that fit into L1 or L2, the building block of every attention kernel:
// register-blocked, no packing, any sizes. Matrices are row-major f32 tiles whose row stride is a
// whole number of vectors (RoundToVectors), so that columns past the logical width are computed too
// and must hold finite values, usually zeros.
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_ATTENTION_SMALL_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_SMALL_PRODUCT_INL_H_
#undef TESSERA_ATTENTION_SMALL_PRODUCT_INL_H_
#else
#define TESSERA_ATTENTION_SMALL_PRODUCT_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "attention/rows-inl.h"
#include "hwy/highway.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

// How the left factor is stored: element (row, k) at a[row * lda + k], or transposed at a[k * lda +
// row].
enum class Left { kPlain, kTransposed };

// Rows of a block that is `vecs` vectors wide: accumulators, one row of the right factor and a
// broadcast value must fit into the registers.
constexpr int BlockRows(int vecs) {
#if HWY_CAP_GE512 || HWY_ARCH_ARM
  return vecs == 4 ? 6 : vecs == 3 ? 8 : vecs == 2 ? 12 : 14;
#else
  return vecs == 4 ? 3 : vecs == 3 ? 4 : vecs == 2 ? 6 : 8;
#endif
}

// One factor: rows `stride` elements apart.
struct Factor {
  const float* data;
  int64_t stride;

  Factor Row(int64_t row) const { return {data + row * stride, stride}; }
};

struct ProductArgs {
  int64_t depth;  // length of the sums
  const float* a;
  int64_t lda;
  const float* b;  // element (k, column) at b[k * ldb + column]
  int64_t ldb;
  float* c;
  int64_t ldc;
  bool accumulate;  // c += a b instead of c = a b
};

// One block of kRows x kVecs vectors of c. Every loop over `acc` must be unrolled or g++ keeps it
// in memory.
template <Left kLeft, class Format, int kRows, int kVecs>
void ProductBlock(const ProductArgs& args) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  const int64_t lda = args.lda, ldb = args.ldb, ldc = args.ldc;
  const float* HWY_RESTRICT a = args.a;
  const float* HWY_RESTRICT b = args.b;
  float* HWY_RESTRICT c = args.c;
  FloatVec acc[kRows][kVecs];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) acc[r][v] = hn::Zero(df);
  }
  if (args.accumulate) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) acc[r][v] = hn::Load(df, c + r * ldc + v * lanes);
    }
  }
  for (int64_t k = 0; k < args.depth; ++k) {
    if constexpr (kVecs > kRows) {
      FloatVec left[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r)
        left[r] = hn::Set(df, kLeft == Left::kPlain ? a[r * lda] : a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        const FloatVec right = hn::Load(df, b + v * lanes);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) acc[r][v] = Format::MulAdd(left[r], right, acc[r][v]);
      }
    } else {
      FloatVec right[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) right[v] = hn::Load(df, b + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const FloatVec left = hn::Set(df, kLeft == Left::kPlain ? a[r * lda] : a[r]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) acc[r][v] = Format::MulAdd(left, right[v], acc[r][v]);
      }
    }
    a += kLeft == Left::kPlain ? 1 : lda;
    b += ldb;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) hn::Store(acc[r][v], df, c + r * ldc + v * lanes);
  }
}

template <Left kLeft, class Format, int kVecs, int kRows = BlockRows(kVecs)>
void ProductBlockOfRows(int rows, const ProductArgs& args) {
  if (rows == kRows) return ProductBlock<kLeft, Format, kRows, kVecs>(args);
  if constexpr (kRows > 1) ProductBlockOfRows<kLeft, Format, kVecs, kRows - 1>(rows, args);
}

// A panel of kVecs vectors of columns, cut into row blocks of nearly equal heights, since a thin
// last block would wait for the latency of its few sums.
template <Left kLeft, class Format, int kVecs>
void ProductPanel(int64_t rows, ProductArgs args) {
  const int64_t blocks = (rows + BlockRows(kVecs) - 1) / BlockRows(kVecs);
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t height = rows * (i + 1) / blocks - rows * i / blocks;
    ProductBlockOfRows<kLeft, Format, kVecs>(static_cast<int>(height), args);
    args.a += kLeft == Left::kPlain ? height * args.lda : height;
    args.c += height * args.ldc;
  }
}

// c [rows, columns] = or += a [rows, depth] b [depth, columns], where the elements of a and b are
// those of the format (formats-inl.h) and those of c are f32; columns are rounded up to whole
// vectors.
template <Left kLeft, class Format>
void SmallProduct(int64_t rows, int64_t columns, int64_t depth, const Factor& a, const Factor& b,
                  float* c, int64_t ldc, bool accumulate) {
  ProductArgs args = {depth, a.data, a.stride, b.data, b.stride, c, ldc, accumulate};
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(FloatTag()));
  for (int64_t vecs = RoundToVectors(columns) / lanes; vecs > 0;) {
    const int64_t width = vecs <= 4 ? vecs : vecs <= 6 ? 3 : 4;
    switch (width) {
      case 1:
        ProductPanel<kLeft, Format, 1>(rows, args);
        break;
      case 2:
        ProductPanel<kLeft, Format, 2>(rows, args);
        break;
      case 3:
        ProductPanel<kLeft, Format, 3>(rows, args);
        break;
      default:
        ProductPanel<kLeft, Format, 4>(rows, args);
        break;
    }
    args.b += width * lanes;
    args.c += width * lanes;
    vecs -= width;
  }
}

// Lanes(d) values: quarter q (or half, or all, of smaller vectors) holds 4 values from p + 4 * q *
// stride.
template <class D>
HWY_INLINE hn::Vec<D> LoadBlocks(D d, const float* p, int64_t stride) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    return hn::LoadU(d, p);
  } else {
    const hn::Half<D> half;
    const int64_t upper_row = static_cast<int64_t>(hn::Lanes(half));
    return hn::Combine(d, LoadBlocks(half, p + upper_row * stride, stride),
                       LoadBlocks(half, p, stride));
  }
}

// to [columns, ld_to] = from [rows, ld_from] transposed. Both row strides are whole vectors; `from`
// must have rows up to RoundToVectors(rows) with finite values, which land in the padding columns
// of `to`.
inline void TransposeTile(const float* from, int64_t rows, int64_t columns, int64_t ld_from,
                          float* to, int64_t ld_to) {
  const FloatTag df;
  const hn::RebindToUnsigned<FloatTag> du;
  const hn::Repartition<uint64_t, FloatTag> du64;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (int64_t r = 0; r < rows; r += lanes) {
    for (int64_t c = 0; c < columns; c += 4) {
      const float* p = from + r * ld_from + c;
      const auto r0 = hn::BitCast(du, LoadBlocks(df, p, ld_from));
      const auto r1 = hn::BitCast(du, LoadBlocks(df, p + ld_from, ld_from));
      const auto r2 = hn::BitCast(du, LoadBlocks(df, p + 2 * ld_from, ld_from));
      const auto r3 = hn::BitCast(du, LoadBlocks(df, p + 3 * ld_from, ld_from));
      const auto lo01 = hn::BitCast(du64, hn::InterleaveLower(du, r0, r1));
      const auto hi01 = hn::BitCast(du64, hn::InterleaveUpper(du, r0, r1));
      const auto lo23 = hn::BitCast(du64, hn::InterleaveLower(du, r2, r3));
      const auto hi23 = hn::BitCast(du64, hn::InterleaveUpper(du, r2, r3));
      float* q = to + c * ld_to + r;
      hn::Store(hn::BitCast(df, hn::InterleaveLower(du64, lo01, lo23)), df, q);
      hn::Store(hn::BitCast(df, hn::InterleaveUpper(du64, lo01, lo23)), df, q + ld_to);
      hn::Store(hn::BitCast(df, hn::InterleaveLower(du64, hi01, hi23)), df, q + 2 * ld_to);
      hn::Store(hn::BitCast(df, hn::InterleaveUpper(du64, hi01, hi23)), df, q + 3 * ld_to);
    }
  }
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_ATTENTION_SMALL_PRODUCT_INL_H_
