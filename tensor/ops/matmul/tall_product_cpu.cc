#include <immintrin.h>

#include <algorithm>
#include <array>

#include "core/parallel.h"
#include "tensor/ops/matmul/tall_product.h"
#include "tensor/simd_targets.h"

#include "hwy/base.h"

// Highway has no target with avx512_bf16 yet, so this file names its instructions.
#define TESSERA_AVX512_BF16 __attribute__((target("avx512f,avx512bw,avx512bf16")))

namespace tessera {
namespace {

// Both matrices are copied into panels of 16 columns, in which neither needs a transposition: a
// word of a is broadcast against 16 words of b. A word holds one f32, or two bf16 of successive
// rows, as the instruction multiplies pairs of bf16 and adds both products to an f32:
// panel[pair][column] = {row 2 * pair, row 2 * pair + 1}.
constexpr int64_t kPanelColumns = 16;
constexpr int64_t kBlockWords = 64;  // words of a column that are copied at once
// One word more than needed, lest successive panels fall into the same sets of the L1 cache.
constexpr int64_t kPanelWords = (kBlockWords + 1) * kPanelColumns;
// A tile of c in registers: 8 rows, 3 vectors of columns.
constexpr int kTileRows = 8;
constexpr int kTileVectors = 3;
constexpr int64_t kMaxNarrow = 192;  // columns of the narrower matrix
// Parts of the rows that are summed apart, each into a c of its own: of at least so many rows, and
// no more than so many parts.
constexpr int64_t kMinPartRows = 1568;
constexpr int64_t kMaxParts = 32;

int64_t NumPanels(int64_t columns) { return NumChunks(columns, kPanelColumns); }

// The first `bits` bits.
template <typename Mask>
Mask FirstBits(int64_t bits) {
  return static_cast<Mask>(
      bits >= static_cast<int64_t>(8 * sizeof(Mask)) ? -1 : (int64_t{1} << bits) - 1);
}

struct Floats {
  using Value = float;
  static constexpr int64_t kWordRows = 1;

  // Panels of `rows` rows of x [.., stride], of its first `columns` columns; zeros in the columns
  // past the end. Asks for the same place of the next block.
  TESSERA_AVX512_BF16 static void Pack(const float* x, int64_t rows, int64_t stride,
                                       int64_t columns, uint32_t* panels) {
    for (int64_t row = 0; row < rows; ++row) {
      const float* from = x + row * stride;
      uint32_t* to = panels + row * kPanelColumns;
      for (int64_t c = 0; c < columns; c += kPanelColumns, to += kPanelWords) {
        _mm_prefetch(from + c + kBlockWords * stride, _MM_HINT_T1);
        const __mmask16 mask = FirstBits<__mmask16>(columns - c);
        _mm512_store_ps(to, _mm512_maskz_loadu_ps(mask, from + c));
      }
    }
  }

  TESSERA_AVX512_BF16 static __m512 MultiplyAdd(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
};

struct Bf16Pairs {
  using Value = BF16;
  static constexpr int64_t kWordRows = 2;

  // The same; zeros in an odd last row.
  TESSERA_AVX512_BF16 static void Pack(const BF16* x, int64_t rows, int64_t stride, int64_t columns,
                                       uint32_t* panels) {
    alignas(64) static constexpr auto kOrder = [] {
      std::array<std::array<uint16_t, 32>, 2> order = {};
      for (uint16_t i = 0; i < 32; ++i) {
        order[0][i] = static_cast<uint16_t>(i / 2 + i % 2 * 32);
        order[1][i] = static_cast<uint16_t>(order[0][i] + 16);
      }
      return order;
    }();
    const __m512i low_order = _mm512_load_si512(kOrder[0].data());
    const __m512i high_order = _mm512_load_si512(kOrder[1].data());
    for (int64_t row = 0; row < rows; row += 2) {
      uint32_t* pair = panels + row / 2 * kPanelColumns;
      for (int64_t c = 0; c < columns; c += 2 * kPanelColumns) {
        const int64_t rest = columns - c;
        const __mmask32 mask = FirstBits<__mmask32>(rest);
        const BF16* from = x + row * stride + c;
        _mm_prefetch(from + 2 * kBlockWords * stride, _MM_HINT_T1);
        _mm_prefetch(from + (2 * kBlockWords + 1) * stride, _MM_HINT_T1);
        const __m512i first = _mm512_maskz_loadu_epi16(mask, from);
        const __m512i second =
            row + 1 < rows ? _mm512_maskz_loadu_epi16(mask, from + stride) : _mm512_setzero_si512();
        uint32_t* to = pair + c / kPanelColumns * kPanelWords;
        _mm512_store_si512(to, _mm512_permutex2var_epi16(first, low_order, second));
        if (rest <= kPanelColumns) continue;
        _mm512_store_si512(to + kPanelWords, _mm512_permutex2var_epi16(first, high_order, second));
      }
    }
  }

  TESSERA_AVX512_BF16 static __m512 MultiplyAdd(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
  }
};

// A tile of c [.., stride], of kVectors panels of b, from so many words of each column; overwritten
// or added to.
template <class Format, int kVectors>
TESSERA_AVX512_BF16 void MultiplyTile(const uint32_t* a, const uint32_t* b, int64_t words, float* c,
                                      int64_t stride, bool accumulate) {
  __m512 sums[kTileRows][kVectors];
  HWY_UNROLL(8)
  for (int r = 0; r < kTileRows; ++r) {
    HWY_UNROLL(3)
    for (int v = 0; v < kVectors; ++v) {
      sums[r][v] =
          accumulate ? _mm512_load_ps(c + r * stride + v * kPanelColumns) : _mm512_setzero_ps();
    }
  }
  for (int64_t word = 0; word < words; ++word) {
    __m512i columns[kVectors];
    HWY_UNROLL(3)
    for (int v = 0; v < kVectors; ++v) {
      columns[v] = _mm512_load_si512(b + v * kPanelWords + word * kPanelColumns);
    }
    HWY_UNROLL(8)
    for (int r = 0; r < kTileRows; ++r) {
      const __m512i row = _mm512_set1_epi32(static_cast<int>(a[word * kPanelColumns + r]));
      HWY_UNROLL(3)
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = Format::MultiplyAdd(sums[r][v], row, columns[v]);
      }
    }
  }
  HWY_UNROLL(8)
  for (int r = 0; r < kTileRows; ++r) {
    HWY_UNROLL(3)
    for (int v = 0; v < kVectors; ++v) {
      _mm512_store_ps(c + r * stride + v * kPanelColumns, sums[r][v]);
    }
  }
}

// c [m, n], both rounded up to whole panels, inside [.., stride], = or += the product of one block.
template <class Format>
void MultiplyPanels(const uint32_t* a, const uint32_t* b, int64_t m, int64_t n, int64_t words,
                    float* c, int64_t stride, bool accumulate) {
  const int64_t b_panels = NumPanels(n);
  for (int64_t panel = 0; panel < b_panels; panel += kTileVectors) {
    const uint32_t* b_panel = b + panel * kPanelWords;
    for (int64_t row = 0; row < NumPanels(m) * kPanelColumns; row += kTileRows) {
      const uint32_t* a_rows = a + row / kPanelColumns * kPanelWords + row % kPanelColumns;
      float* tile = c + row * stride + panel * kPanelColumns;
      switch (b_panels - panel) {
        case 1:
          MultiplyTile<Format, 1>(a_rows, b_panel, words, tile, stride, accumulate);
          break;
        case 2:
          MultiplyTile<Format, 2>(a_rows, b_panel, words, tile, stride, accumulate);
          break;
        default:
          MultiplyTile<Format, 3>(a_rows, b_panel, words, tile, stride, accumulate);
      }
    }
  }
}

// The share of `rows` rows in c [.., stride]. The narrower matrix is packed as a whole, the other
// one in groups of columns, so that both stay in the L1 cache.
template <class Format>
void AddBlock(const MatMulArgs& args, int64_t row, int64_t rows, float* c, int64_t stride,
              bool accumulate) {
  constexpr int64_t kGroupColumns = kTileVectors * kPanelColumns;
  alignas(64) uint32_t group[kTileVectors * kPanelWords];
  alignas(64) uint32_t whole[kMaxNarrow / kPanelColumns * kPanelWords];
  using T = typename Format::Value;
  const T* a = static_cast<const T*>(args.a) + row * args.m;
  const T* b = static_cast<const T*>(args.b) + row * args.n;
  const int64_t words = NumChunks(rows, Format::kWordRows);
  if (args.n <= args.m) {
    Format::Pack(b, rows, args.n, args.n, whole);
    for (int64_t i = 0; i < args.m; i += kGroupColumns) {
      const int64_t columns = std::min(kGroupColumns, args.m - i);
      Format::Pack(a + i, rows, args.m, columns, group);
      MultiplyPanels<Format>(group, whole, columns, args.n, words, c + i * stride, stride,
                             accumulate);
    }
  } else {
    Format::Pack(a, rows, args.m, args.m, whole);
    for (int64_t j = 0; j < args.n; j += kGroupColumns) {
      const int64_t columns = std::min(kGroupColumns, args.n - j);
      Format::Pack(b + j, rows, args.n, columns, group);
      MultiplyPanels<Format>(whole, group, args.m, columns, words, c + j, stride, accumulate);
    }
  }
}

// The sums of parts of the rows, each a c of `part_size` floats, with rows `stride` apart.
template <class Format>
void SumParts(const MatMulArgs& args, int64_t part_rows, int64_t part_size, int64_t stride,
              float* parts) {
  constexpr int64_t kBlockRows = kBlockWords * Format::kWordRows;
  ParallelFor(args.k, part_rows, [&](int64_t begin, int64_t end) {
    float* part = parts + begin / part_rows * part_size;
    for (int64_t row = begin; row < end; row += kBlockRows) {
      AddBlock<Format>(args, row, std::min(kBlockRows, end - row), part, stride, row > begin);
    }
  });
}

}  // namespace

bool IsTallProduct(const MatMulArgs& args) {
  return kCpuHasAvx512Bf16 && args.out_dtype == DType::kF32 && args.transpose_a &&
         !args.transpose_b && args.bias == nullptr && args.k >= 2 * kMinPartRows &&
         std::min(args.m, args.n) <= kMaxNarrow && std::max(args.m, args.n) <= 1024;
}

void RunTallProduct(const MatMulArgs& args) {
  const auto [m, n, k] = std::array{args.m, args.n, args.k};
  const int64_t stride = NumPanels(n) * kPanelColumns;
  const int64_t part_size = NumPanels(m) * kPanelColumns * stride;
  const int64_t part_rows = std::max(kMinPartRows, NumChunks(k, kMaxParts));
  const int64_t num_parts = NumChunks(k, part_rows);
  const Tensor parts = Tensor::Empty({num_parts, part_size}, DType::kF32);
  if (args.in_dtype == DType::kBF16) {
    SumParts<Bf16Pairs>(args, part_rows, part_size, stride, parts.data<float>());
  } else {
    SumParts<Floats>(args, part_rows, part_size, stride, parts.data<float>());
  }
  ParallelFor(m, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float* __restrict c = static_cast<float*>(args.c) + i * n;
      if (!args.accumulate) std::fill_n(c, n, 0.0f);
      for (int64_t part = 0; part < num_parts; ++part) {
        const float* __restrict from = parts.data<float>() + part * part_size + i * stride;
        for (int64_t j = 0; j < n; ++j) c[j] += from[j];
      }
    }
  });
}

}  // namespace tessera
