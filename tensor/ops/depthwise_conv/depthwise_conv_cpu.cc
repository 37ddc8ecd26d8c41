#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/depthwise_conv/depthwise_conv_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>

#include "core/parallel.h"
#include "tensor/ops/depthwise_conv/depthwise_conv.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/partial_sums.h"
#include "tensor/simd-inl.h"

// Both kernels go over the map in tiles of 2 x 4 pixels and, inside a tile, over the channels: a
// vector of channels of an input pixel is loaded once and meets all the pixels of the tile that it
// touches, whose sums stay in registers.
HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

constexpr int kKernel = 3;
constexpr int kTaps = kKernel * kKernel;
constexpr int kTileRows = 2;
constexpr int kTileColumns = 4;
constexpr int kInputRows = kTileRows + kKernel - 1;
constexpr int kInputColumns = kTileColumns + kKernel - 1;

// A tile of the map and the pixels around it. Pixel (r, c) of the tile is (r + 1, c + 1) of its
// surroundings.
struct Tile {
  int64_t offset;  // of the tile's first pixel, in elements
  int64_t rows, columns;
  bool inside;  // a full tile that touches no border on its left or right
  bool has_row[kInputRows];
  bool has_column[kInputColumns];
};

// Calls fn(tile) for the tiles of the rows [begin, end), which all lie in one image.
template <typename Fn>
void ForEachTile(int64_t height, int64_t width, int64_t channels, int64_t begin, int64_t end,
                 const Fn& fn) {
  for (int64_t row = begin; row < end; row += kTileRows) {
    Tile tile;
    tile.rows = std::min<int64_t>(kTileRows, end - row);
    const int64_t y = row % height;
    for (int r = 0; r < kInputRows; ++r) tile.has_row[r] = y + r >= 1 && y + r <= height;
    for (int64_t x = 0; x < width; x += kTileColumns) {
      tile.columns = std::min<int64_t>(kTileColumns, width - x);
      tile.inside = x >= 1 && x + kTileColumns < width;
      for (int c = 0; c < kInputColumns; ++c) tile.has_column[c] = x + c >= 1 && x + c <= width;
      tile.offset = (row * width + x) * channels;
      fn(tile);
    }
  }
}

// One vector of channels of a tile's outputs.
template <bool kInside, typename T, typename L>
HWY_INLINE void ConvolveTile(const DepthwiseConvArgs& args, const Tile& tile, const float* weight,
                             int64_t channel, L lanes) {
  const FloatTag df;
  const int64_t channels = args.channels;
  const int64_t row_stride = args.width * channels;
  const T* x = static_cast<const T*>(args.x) + tile.offset + channel;
  T* y = static_cast<T*>(args.y) + tile.offset + channel;
  FloatVec sums[kTileRows][kTileColumns];
  const FloatVec bias =
      args.bias == nullptr ? hn::Zero(df) : LoadF32N(df, args.bias + channel, lanes);
  FloatVec w[kTaps];
  HWY_UNROLL(9)
  for (int t = 0; t < kTaps; ++t) w[t] = LoadF32N(df, weight + t * channels + channel, lanes);
  HWY_UNROLL(2)
  for (int r = 0; r < kTileRows; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < kTileColumns; ++c) sums[r][c] = bias;
  }
  HWY_UNROLL(4)
  for (int in_row = 0; in_row < kInputRows; ++in_row) {
    if (!tile.has_row[in_row]) continue;
    HWY_UNROLL(6)
    for (int in_column = 0; in_column < kInputColumns; ++in_column) {
      if (!kInside && !tile.has_column[in_column]) continue;
      const FloatVec in =
          LoadF32N(df, x + (in_row - 1) * row_stride + (in_column - 1) * channels, lanes);
      HWY_UNROLL(2)
      for (int r = 0; r < kTileRows; ++r) {
        HWY_UNROLL(4)
        for (int c = 0; c < kTileColumns; ++c) {
          const int ky = in_row - r, kx = in_column - c;
          if (ky < 0 || ky >= kKernel || kx < 0 || kx >= kKernel) continue;
          sums[r][c] = hn::MulAdd(in, w[ky * kKernel + kx], sums[r][c]);
        }
      }
    }
  }
  HWY_UNROLL(2)
  for (int r = 0; r < kTileRows; ++r) {
    if (r >= tile.rows) continue;
    HWY_UNROLL(4)
    for (int c = 0; c < kTileColumns; ++c) {
      if (!kInside && c >= tile.columns) continue;
      T* to = y + r * row_stride + c * channels;
      const FloatVec before = args.accumulate ? LoadF32N(df, to, lanes) : hn::Zero(df);
      StoreF32N(hn::Add(sums[r][c], before), df, to, lanes);
    }
  }
}

// Rows [begin, end) of y, all of one image; `weight` is [9, C].
void ConvolveRows(const DepthwiseConvArgs& args, const float* weight, int64_t begin, int64_t end) {
  const FloatTag df;
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    ForEachTile(args.height, args.width, args.channels, begin, end, [&](const Tile& tile) {
      ForEachVector(df, args.channels, [&](int64_t channel, auto lanes) HWY_ATTR {
        if (tile.inside) {
          ConvolveTile<true, T>(args, tile, weight, channel, lanes);
        } else {
          ConvolveTile<false, T>(args, tile, weight, channel, lanes);
        }
      });
    });
  });
}

// Adds one tile's share to the nine sums of products and the sum of dy of one vector of channels;
// `sums` is [10, C].
template <bool kInside, typename T, typename L>
HWY_INLINE void CorrelateTile(const DepthwiseConvGradWeightArgs& args, const Tile& tile,
                              float* sums, int64_t channel, L lanes) {
  const FloatTag df;
  const int64_t channels = args.channels;
  const int64_t row_stride = args.width * channels;
  const T* x = static_cast<const T*>(args.x) + tile.offset + channel;
  const T* dy = static_cast<const T*>(args.dy) + tile.offset + channel;
  FloatVec out[kTileRows][kTileColumns];
  FloatVec bias_sum = LoadF32N(df, sums + kTaps * channels + channel, lanes);
  HWY_UNROLL(2)
  for (int r = 0; r < kTileRows; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < kTileColumns; ++c) {
      const bool has = r < tile.rows && (kInside || c < tile.columns);
      out[r][c] = has ? LoadF32N(df, dy + r * row_stride + c * channels, lanes) : hn::Zero(df);
      bias_sum = hn::Add(bias_sum, out[r][c]);
    }
  }
  StoreF32N(bias_sum, df, sums + kTaps * channels + channel, lanes);
  FloatVec w[kTaps];
  HWY_UNROLL(9)
  for (int t = 0; t < kTaps; ++t) w[t] = LoadF32N(df, sums + t * channels + channel, lanes);
  HWY_UNROLL(4)
  for (int in_row = 0; in_row < kInputRows; ++in_row) {
    if (!tile.has_row[in_row]) continue;
    HWY_UNROLL(6)
    for (int in_column = 0; in_column < kInputColumns; ++in_column) {
      if (!kInside && !tile.has_column[in_column]) continue;
      const FloatVec in =
          LoadF32N(df, x + (in_row - 1) * row_stride + (in_column - 1) * channels, lanes);
      HWY_UNROLL(2)
      for (int r = 0; r < kTileRows; ++r) {
        HWY_UNROLL(4)
        for (int c = 0; c < kTileColumns; ++c) {
          const int ky = in_row - r, kx = in_column - c;
          if (ky < 0 || ky >= kKernel || kx < 0 || kx >= kKernel) continue;
          w[ky * kKernel + kx] = hn::MulAdd(in, out[r][c], w[ky * kKernel + kx]);
        }
      }
    }
  }
  HWY_UNROLL(9)
  for (int t = 0; t < kTaps; ++t) StoreF32N(w[t], df, sums + t * channels + channel, lanes);
}

// Rows [begin, end) of dy, all of one image.
void CorrelateRows(const DepthwiseConvGradWeightArgs& args, int64_t begin, int64_t end,
                   float* sums) {
  const FloatTag df;
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    ForEachTile(args.height, args.width, args.channels, begin, end, [&](const Tile& tile) {
      ForEachVector(df, args.channels, [&](int64_t channel, auto lanes) HWY_ATTR {
        if (tile.inside) {
          CorrelateTile<true, T>(args, tile, sums, channel, lanes);
        } else {
          CorrelateTile<false, T>(args, tile, sums, channel, lanes);
        }
      });
    });
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(ConvolveRows);
HWY_EXPORT(CorrelateRows);

constexpr int64_t kTaps = 9;

// Images are cut into blocks of an even number of rows.
struct RowBlocks {
  RowBlocks(int64_t batch, int64_t height, int64_t row_elements, int64_t min_elements) {
    rows = std::max<int64_t>(min_elements / row_elements / 2, 1) * 2;
    per_image = NumChunks(height, rows);
    total = batch * per_image;
  }
  int64_t rows;  // of a block, the last of an image may have fewer
  int64_t per_image;
  int64_t total;
};

// Calls fn(block, begin, end) in parallel, begin and end counting rows over all images.
template <typename Fn>
void ForEachBlock(const RowBlocks& blocks, int64_t height, const Fn& fn) {
  ParallelFor(blocks.total, 1, [&](int64_t block, int64_t) {
    const int64_t image = block / blocks.per_image;
    const int64_t first = block % blocks.per_image * blocks.rows;
    fn(block, image * height + first, image * height + std::min(height, first + blocks.rows));
  });
}

void DepthwiseConvCpu(const DepthwiseConvArgs& args) {
  // The kernel as [9, C]; adding x to the result is adding 1 to the middle tap.
  const Tensor by_tap = Tensor::Empty({kTaps, args.channels}, DType::kF32);
  float* weight = by_tap.data<float>();
  for (int64_t c = 0; c < args.channels; ++c) {
    for (int64_t t = 0; t < kTaps; ++t) {
      weight[t * args.channels + c] =
          args.weight[c * kTaps + (args.transposed ? kTaps - 1 - t : t)];
    }
    if (args.residual) weight[kTaps / 2 * args.channels + c] += 1.0f;
  }
  const RowBlocks blocks(args.batch, args.height, args.width * args.channels, int64_t{1} << 14);
  ForEachBlock(blocks, args.height, [&](int64_t, int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ConvolveRows)(args, weight, begin, end);
  });
}

void DepthwiseConvGradWeightCpu(const DepthwiseConvGradWeightArgs& args) {
  const int64_t channels = args.channels;
  const RowBlocks blocks(args.batch, args.height, args.width * channels, int64_t{1} << 15);
  const PartialSums sums(blocks.total, (kTaps + 1) * channels);
  ForEachBlock(blocks, args.height, [&](int64_t block, int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(CorrelateRows)(args, begin, end, sums.chunk(block));
  });
  if (args.dbias != nullptr) {
    sums.AddUp(kTaps * channels, channels, args.dbias, args.accumulate_dbias);
  }
  if (args.dweight == nullptr) return;
  const Tensor by_tap = Tensor::Empty({kTaps, channels}, DType::kF32);
  sums.AddUp(0, kTaps * channels, by_tap.data<float>(), false);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t t = 0; t < kTaps; ++t) {
      float& dweight = args.dweight[c * kTaps + t];
      dweight = by_tap.data<float>()[t * channels + c] + (args.accumulate_dweight ? dweight : 0.0f);
    }
  }
}

REGISTER_KERNEL(depthwise_conv, Device::kCpu, DepthwiseConvCpu);
REGISTER_KERNEL(depthwise_conv_grad_weight, Device::kCpu, DepthwiseConvGradWeightCpu);

}  // namespace
}  // namespace tessera
#endif
