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

// The instruction multiplies pairs of adjacent bf16 and adds both products to an f32. Pairs must
// lie along the sum, that is in two successive rows, so rows are interleaved by twos, into panels
// of 16 columns: panel[pair][column] = {row 2 * pair, row 2 * pair + 1}. With both matrices in that
// form neither needs a transposition: a pair of a is broadcast against 16 pairs of b.
constexpr int64_t kPanelColumns = 16;
constexpr int64_t kBlockRows = 128;  // rows of a and b that are interleaved at once
constexpr int64_t kBlockPairs = kBlockRows / 2;
// One pair more than needed, lest successive panels fall into the same sets of the L1 cache.
constexpr int64_t kPanelWords = (kBlockPairs + 1) * kPanelColumns;
// A tile of c in registers: 8 rows, 3 vectors of columns.
constexpr int kTileRows = 8;
constexpr int kTileVectors = 3;
constexpr int64_t kMaxNarrow = 192;  // columns of the narrower matrix
// Parts of the rows that are summed apart, each into a c of its own: of at least so many rows, and
// no more than so many parts.
constexpr int64_t kMinPartRows = 1568;
constexpr int64_t kMaxParts = 32;

int64_t NumPanels(int64_t columns) { return NumChunks(columns, kPanelColumns); }

// Panels of `rows` rows of x [.., stride], of its first `columns` columns; zeros in the odd last
// row and the columns past the end. Asks for the same place of the next block.
TESSERA_AVX512_BF16 void Interleave(const BF16* x, int64_t rows, int64_t stride, int64_t columns,
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
      const __mmask32 mask = rest >= 32 ? ~__mmask32{0} : (__mmask32{1} << rest) - 1;
      const BF16* from = x + row * stride + c;
      _mm_prefetch(from + kBlockRows * stride, _MM_HINT_T1);
      _mm_prefetch(from + (kBlockRows + 1) * stride, _MM_HINT_T1);
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

// A tile of c [.., stride], of kVectors panels of b, from `pairs` pairs of rows; overwritten or
// added to.
template <int kVectors>
TESSERA_AVX512_BF16 void MultiplyTile(const uint32_t* a, const uint32_t* b, int64_t pairs, float* c,
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
  for (int64_t pair = 0; pair < pairs; ++pair) {
    __m512i columns[kVectors];
    HWY_UNROLL(3)
    for (int v = 0; v < kVectors; ++v) {
      columns[v] = _mm512_load_si512(b + v * kPanelWords + pair * kPanelColumns);
    }
    HWY_UNROLL(8)
    for (int r = 0; r < kTileRows; ++r) {
      const __m512i row = _mm512_set1_epi32(static_cast<int>(a[pair * kPanelColumns + r]));
      HWY_UNROLL(3)
      for (int v = 0; v < kVectors; ++v) {
        sums[r][v] = _mm512_dpbf16_ps(sums[r][v], (__m512bh)row, (__m512bh)columns[v]);
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
void MultiplyPanels(const uint32_t* a, const uint32_t* b, int64_t m, int64_t n, int64_t pairs,
                    float* c, int64_t stride, bool accumulate) {
  const int64_t b_panels = NumPanels(n);
  for (int64_t panel = 0; panel < b_panels; panel += kTileVectors) {
    const uint32_t* b_panel = b + panel * kPanelWords;
    for (int64_t row = 0; row < NumPanels(m) * kPanelColumns; row += kTileRows) {
      const uint32_t* a_rows = a + row / kPanelColumns * kPanelWords + row % kPanelColumns;
      float* tile = c + row * stride + panel * kPanelColumns;
      switch (b_panels - panel) {
        case 1:
          MultiplyTile<1>(a_rows, b_panel, pairs, tile, stride, accumulate);
          break;
        case 2:
          MultiplyTile<2>(a_rows, b_panel, pairs, tile, stride, accumulate);
          break;
        default:
          MultiplyTile<3>(a_rows, b_panel, pairs, tile, stride, accumulate);
      }
    }
  }
}

// The share of `rows` rows in c [.., stride]. The narrower matrix is interleaved as a whole, the
// other one in groups of columns, so that both stay in the L1 cache.
void AddBlock(const MatMulArgs& args, int64_t row, int64_t rows, float* c, int64_t stride,
              bool accumulate) {
  constexpr int64_t kGroupColumns = kTileVectors * kPanelColumns;
  alignas(64) uint32_t group[kTileVectors * kPanelWords];
  alignas(64) uint32_t whole[kMaxNarrow / kPanelColumns * kPanelWords];
  const BF16* a = static_cast<const BF16*>(args.a) + row * args.m;
  const BF16* b = static_cast<const BF16*>(args.b) + row * args.n;
  const int64_t pairs = NumChunks(rows, 2);
  if (args.n <= args.m) {
    Interleave(b, rows, args.n, args.n, whole);
    for (int64_t i = 0; i < args.m; i += kGroupColumns) {
      const int64_t columns = std::min(kGroupColumns, args.m - i);
      Interleave(a + i, rows, args.m, columns, group);
      MultiplyPanels(group, whole, columns, args.n, pairs, c + i * stride, stride, accumulate);
    }
  } else {
    Interleave(a, rows, args.m, args.m, whole);
    for (int64_t j = 0; j < args.n; j += kGroupColumns) {
      const int64_t columns = std::min(kGroupColumns, args.n - j);
      Interleave(b + j, rows, args.n, columns, group);
      MultiplyPanels(whole, group, args.m, columns, pairs, c + j, stride, accumulate);
    }
  }
}

}  // namespace

bool IsTallProduct(const MatMulArgs& args) {
  return kCpuHasAvx512Bf16 && args.in_dtype == DType::kBF16 && args.out_dtype == DType::kF32 &&
         args.transpose_a && !args.transpose_b && args.bias == nullptr &&
         args.k >= 2 * kMinPartRows && std::min(args.m, args.n) <= kMaxNarrow &&
         std::max(args.m, args.n) <= 1024;
}

void RunTallProduct(const MatMulArgs& args) {
  const auto [m, n, k] = std::array{args.m, args.n, args.k};
  const int64_t stride = NumPanels(n) * kPanelColumns;
  const int64_t part_size = NumPanels(m) * kPanelColumns * stride;
  const int64_t part_rows = std::max(kMinPartRows, NumChunks(k, kMaxParts));
  const int64_t num_parts = NumChunks(k, part_rows);
  const Tensor parts = Tensor::Empty({num_parts, part_size}, DType::kF32);
  ParallelFor(k, part_rows, [&](int64_t begin, int64_t end) {
    float* part = parts.data<float>() + begin / part_rows * part_size;
    for (int64_t row = begin; row < end; row += kBlockRows) {
      AddBlock(args, row, std::min(kBlockRows, end - row), part, stride, row > begin);
    }
  });
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
