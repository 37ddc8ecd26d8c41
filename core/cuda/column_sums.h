// Sums over rows without atomics, in a fixed order: each chunk of rows, cut by size alone, sums
// into rows of its own, which a second kernel adds up in order.
#ifndef TESSERA_CORE_CUDA_COLUMN_SUMS_H_
#define TESSERA_CORE_CUDA_COLUMN_SUMS_H_

#include <algorithm>
#include <cstdint>

#include "core/cuda/device.h"
#include "core/cuda/launch.h"

namespace tessera {

// Rows per chunk: at most 512 chunks, enough for every multiprocessor, of 32 rows or more.
constexpr int64_t SumChunkRows(int64_t rows) { return std::max<int64_t>(CeilDiv(rows, 512), 32); }

// partials [chunks, kSums, columns]: fn.template Run<kWidth>(row, column, sums) adds to `sums` what
// columns `column` to column + kWidth - 1 of a row contribute. `across` threads stand side by side.
template <int kWidth, int kSums, typename Fn>
KERNEL(256)
PartialColumnSums(Fn fn, int64_t rows, int64_t columns, int64_t chunk_rows, int across,
                  float* partials) {
  SHARED_ARRAY(float, shared, 256 * kWidth);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t tile = int64_t{blockIdx.y} * across * kWidth;
  const int64_t column = tile + thread % across * kWidth;
  const int down = 256 / across;
  const int64_t begin = blockIdx.x * chunk_rows;
  const int64_t end = begin + chunk_rows < rows ? begin + chunk_rows : rows;
  float sums[kSums][kWidth] = {};
  if (column < columns) {
    for (int64_t row = begin + thread / across; row < end; row += down) {
      fn.template Run<kWidth>(row, column, sums);
    }
  }
  UNROLL for (int s = 0; s < kSums; ++s) {
    BLOCK_SYNC();
    UNROLL for (int j = 0; j < kWidth; ++j) shared[thread * kWidth + j] = sums[s][j];
    BLOCK_SYNC();
    for (int i = thread; i < across * kWidth; i += 256) {
      if (tile + i >= columns) continue;
      float total = 0;
      for (int r = 0; r < down; ++r) total += shared[r * across * kWidth + i];
      partials[(int64_t{blockIdx.x} * kSums + s) * columns + tile + i] = total;
    }
  }
}

// out[s * sum_step + c * column_step] = or += the sum over chunks k of partials[k * stride + s *
// columns + c]. Sums s are blockIdx.y.
static KERNEL(256)
    AddUpPartials(const float* partials, int64_t chunks, int64_t stride, int64_t columns,
                  float* out, int64_t sum_step, int64_t column_step, bool accumulate) {
  SHARED_ARRAY(float, shared, 256);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t column = int64_t{blockIdx.x} * 32 + Lane();
  float sum = 0;
  if (column < columns) {
    const float* first = partials + blockIdx.y * columns + column;
    for (int64_t k = WarpIndex(); k < chunks; k += 8) sum += first[k * stride];
  }
  shared[thread] = sum;
  BLOCK_SYNC();
  if (thread >= 32 || column >= columns) return;
  float* target = out + blockIdx.y * sum_step + column * column_step;
  float total = accumulate ? *target : 0.0f;
  UNROLL for (int w = 0; w < 8; ++w) total += shared[w * 32 + thread];
  *target = total;
}

// How many threads stand side by side to cover `columns` in steps of `width`: a power of two, 32 at
// the most.
constexpr int ThreadsAcross(int64_t columns, int width) {
  int across = 1;
  while (across < 32 && across * width < columns) across *= 2;
  return across;
}

template <int kWidth, int kSums, typename Fn>
void LaunchPartialColumnSums(const Fn& fn, int64_t rows, int64_t columns, int64_t chunk_rows,
                             float* partials) {
  const int across = ThreadsAcross(columns, kWidth);
  Launch<PartialColumnSums<kWidth, kSums, Fn>>(
      {CeilDiv(rows, chunk_rows), CeilDiv(columns, across * kWidth)}, {.x = 256}, 0,
      CurrentStream(), fn, rows, columns, chunk_rows, across, partials);
}

// Where one or more sums of `columns` numbers go.
struct SumTarget {
  float* out;
  int64_t sums = 1;
  int64_t sum_step = 0;
  int64_t column_step = 1;
  bool accumulate = false;
};

inline void LaunchAddUpPartials(const float* partials, int64_t chunks, int64_t stride,
                                int64_t columns, const SumTarget& target) {
  Launch<AddUpPartials>({CeilDiv(columns, 32), target.sums}, {.x = 256}, 0, CurrentStream(),
                        partials, chunks, stride, columns, target.out, target.sum_step,
                        target.column_step, target.accumulate);
}

}  // namespace tessera

#endif  // TESSERA_CORE_CUDA_COLUMN_SUMS_H_
