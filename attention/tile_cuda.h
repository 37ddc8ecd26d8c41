// Products of small matrices in shared memory, by a block of kTileThreads threads: what attention
// kernels are made of. Matrices are row-major f32 with an odd stride, which keeps lanes that read
// one column on different banks.
#ifndef TESSERA_ATTENTION_TILE_CUDA_H_
#define TESSERA_ATTENTION_TILE_CUDA_H_

#include <cstdint>

#include "core/cuda/device.h"

namespace tessera {

inline constexpr int kTileThreads = 128;
inline constexpr int kTileWarps = kTileThreads / kWarpSize;
inline constexpr int kTileRows = 4;  // rows of a product that a warp forms at once

HOST_DEVICE constexpr int TileStride(int columns) { return columns | 1; }

// tile[row][0, columns) = the floats at source(row), for row < rows; kWidth elements per access, of
// which `columns` is a multiple.
template <int kWidth, typename Source>
DEVICE void LoadTile(float* tile, int rows, int columns, const Source& source) {
  const int packs = columns / kWidth;
  for (int i = static_cast<int>(threadIdx.x); i < rows * packs; i += kTileThreads) {
    const int row = i / packs, column = i % packs * kWidth;
    float v[kWidth];
    source(row, column, v);
    UNROLL for (int j = 0; j < kWidth; ++j) tile[row * TileStride(columns) + column + j] = v[j];
  }
}

struct Matrix {
  const float* data;
  int stride;
};

// Calls store(row, column, value) for the elements of a product [rows, columns] over `inner`:
// element (row, column) is the sum over k of left(row, k) * right(k, column). Lanes are columns.
template <typename Left, typename Right, typename Store>
DEVICE void ForEachProduct(int rows, int columns, int inner, const Left& left, const Right& right,
                           const Store& store) {
  for (int first = WarpIndex() * kTileRows; first < rows; first += kTileWarps * kTileRows) {
    // Past the end, rows and columns repeat the last one.
    int row[kTileRows];
    UNROLL for (int r = 0; r < kTileRows; ++r) row[r] = first + r < rows ? first + r : rows - 1;
    for (int begin = 0; begin < columns; begin += kWarpSize) {
      const int column = begin + Lane() < columns ? begin + Lane() : columns - 1;
      float sum[kTileRows] = {};
      for (int k = 0; k < inner; ++k) {
        const float factor = right(k, column);
        UNROLL for (int r = 0; r < kTileRows; ++r) sum[r] = fmaf(left(row[r], k), factor, sum[r]);
      }
      if (begin + Lane() >= columns) continue;
      UNROLL for (int r = 0; r < kTileRows; ++r) {
        if (first + r < rows) store(first + r, column, sum[r]);
      }
    }
  }
}

// a b
template <typename Store>
DEVICE void Product(int rows, int columns, int inner, Matrix a, Matrix b, const Store& store) {
  ForEachProduct(
      rows, columns, inner, [&](int row, int k) { return a.data[row * a.stride + k]; },
      [&](int k, int column) { return b.data[k * b.stride + column]; }, store);
}
// a b^T
template <typename Store>
DEVICE void ProductTransposedB(int rows, int columns, int inner, Matrix a, Matrix b,
                               const Store& store) {
  ForEachProduct(
      rows, columns, inner, [&](int row, int k) { return a.data[row * a.stride + k]; },
      [&](int k, int column) { return b.data[column * b.stride + k]; }, store);
}
// a^T b
template <typename Store>
DEVICE void ProductTransposedA(int rows, int columns, int inner, Matrix a, Matrix b,
                               const Store& store) {
  ForEachProduct(
      rows, columns, inner, [&](int row, int k) { return a.data[k * a.stride + row]; },
      [&](int k, int column) { return b.data[k * b.stride + column]; }, store);
}

// A warp replaces a row of n logits by softmax(scale * logits).
DEVICE void SoftmaxRow(float* row, int n, float scale) {
  float max = -INFINITY;
  for (int j = Lane(); j < n; j += kWarpSize) max = fmaxf(max, row[j]);
  max = WarpMax(max);
  float sum = 0;
  for (int j = Lane(); j < n; j += kWarpSize) {
    row[j] = expf(scale * (row[j] - max));
    sum += row[j];
  }
  const float inverse_sum = 1.0f / WarpSum(sum);
  for (int j = Lane(); j < n; j += kWarpSize) row[j] *= inverse_sum;
}

// A warp replaces the gradient of a row of probabilities p by that of the logits before `scale`:
// scale p (d_p - sum of p d_p).
DEVICE void SoftmaxBackwardRow(const float* p, float* d, int n, float scale) {
  float dot = 0;
  for (int j = Lane(); j < n; j += kWarpSize) dot = fmaf(p[j], d[j], dot);
  dot = WarpSum(dot);
  for (int j = Lane(); j < n; j += kWarpSize) d[j] = scale * p[j] * (d[j] - dot);
}

}  // namespace tessera

#endif  // TESSERA_ATTENTION_TILE_CUDA_H_
