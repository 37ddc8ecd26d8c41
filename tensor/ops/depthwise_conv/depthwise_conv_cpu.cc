#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/depthwise_conv/depthwise_conv_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>
#include <type_traits>

#include "core/parallel.h"
#include "tensor/ops/depthwise_conv/depthwise_conv.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/partial_sums.h"
#include "tensor/simd-inl.h"

// All kernels go over the map of results in tiles of 2 x 4 pixels and, inside a tile, over the
// channels: a vector of channels of an input pixel is loaded once and meets all the pixels of the
// tile that it touches, whose sums stay in registers.
HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

constexpr int kTileRows = 2;
constexpr int kTileColumns = 4;

// How the pixels of a tile and those around it, its inputs, meet: row r of the tile and row i of
// its inputs through row Tap(i, r) of the kernel, if there is such a row; columns alike.
//
// With kTransposed the tile lies on x and its inputs on y, for the gradient of the input: x[p] has
// a part in y[o] through tap p - stride * o, p counted from the start of the padding. Tiles then
// start at multiples of the stride.
template <int kKernelSize, int kStrideOfKernel, bool kTransposed>
struct Window {
  static constexpr int kKernel = kKernelSize;
  static constexpr int kTaps = kKernel * kKernel;
  static constexpr int kStride = kStrideOfKernel;
  static constexpr int kReach = (kKernel - 1) / kStride;  // of a transposed window, backwards

  static constexpr int Inputs(int outputs) {
    return kTransposed ? (outputs - 1) / kStride + kReach + 1 : kKernel + kStride * (outputs - 1);
  }
  static constexpr int kInputRows = Inputs(kTileRows);
  static constexpr int kInputColumns = Inputs(kTileColumns);

  static constexpr int Tap(int in, int out) {
    return kTransposed ? out + kStride * (kReach - in) : in - kStride * out;
  }
  static constexpr bool IsTap(int tap) { return tap >= 0 && tap < kKernel; }
  // Rows of the kernel that rows of a tile are still to meet, or meet, at one row of inputs; and
  // whether none of them met row Tap(in, out) before.
  static constexpr int kLiveRows = kTransposed ? kTileRows : kStride * (kTileRows - 1) + 1;
  static constexpr bool IsFirstUse(int, int out) { return kTransposed || out == 0; }

  // The first output of tile `index`, and the first input of a tile that starts at `out`.
  static int64_t FirstOutput(int64_t index, int64_t size, int64_t pad) {
    return index * size - (kTransposed ? pad % kStride : 0);
  }
  static int64_t FirstInput(int64_t out, int64_t pad) {
    return kTransposed ? (out + pad) / kStride - kReach : out * kStride - pad;
  }
  static int64_t NumTiles(int64_t outputs, int64_t size, int64_t pad) {
    return NumChunks(outputs - FirstOutput(0, size, pad), size);
  }
};

// Two maps: pixels are `stride` elements apart.
struct Maps {
  int64_t batch, channels;
  int64_t in_height, in_width, in_stride;
  int64_t out_height, out_width, out_stride;
  int64_t pad_top, pad_left;
};

Maps MapsOf(const DepthwiseConvShape& s, int64_t in_stride, int64_t out_stride) {
  return {.batch = s.batch,
          .channels = s.channels,
          .in_height = s.height,
          .in_width = s.width,
          .in_stride = in_stride,
          .out_height = s.out_height,
          .out_width = s.out_width,
          .out_stride = out_stride,
          .pad_top = s.geometry.pad_top,
          .pad_left = s.geometry.pad_left};
}

template <class W>
struct Tile {
  int64_t in_offset;  // of the first input, which may lie outside, in elements
  int64_t out_offset;
  bool inside;  // all its columns, and those of its inputs, lie on the maps
  bool has_in_row[W::kInputRows];
  bool has_in_column[W::kInputColumns];
  bool has_out_row[kTileRows];
  bool has_out_column[kTileColumns];
};

// Notes which of the positions first, first + 1, ... are on an axis of `size`; true if all are.
template <int kCount>
bool NoteInside(int64_t first, int64_t size, bool (&has)[kCount]) {
  bool all = true;
  for (int i = 0; i < kCount; ++i) {
    has[i] = first + i >= 0 && first + i < size;
    all &= has[i];
  }
  return all;
}

// Calls fn(tile) for the rows [begin, end) of tiles of an image.
template <class W, typename Fn>
void ForEachTile(const Maps& maps, int64_t image, int64_t begin, int64_t end, const Fn& fn) {
  const int64_t columns = W::NumTiles(maps.out_width, kTileColumns, maps.pad_left);
  for (int64_t row = begin; row < end; ++row) {
    Tile<W> tile;
    const int64_t out_y = W::FirstOutput(row, kTileRows, maps.pad_top);
    const int64_t in_y = W::FirstInput(out_y, maps.pad_top);
    NoteInside(out_y, maps.out_height, tile.has_out_row);
    NoteInside(in_y, maps.in_height, tile.has_in_row);
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t out_x = W::FirstOutput(column, kTileColumns, maps.pad_left);
      const int64_t in_x = W::FirstInput(out_x, maps.pad_left);
      const bool out_inside = NoteInside(out_x, maps.out_width, tile.has_out_column);
      const bool in_inside = NoteInside(in_x, maps.in_width, tile.has_in_column);
      tile.inside = out_inside && in_inside;
      tile.in_offset = ((image * maps.in_height + in_y) * maps.in_width + in_x) * maps.in_stride;
      tile.out_offset =
          ((image * maps.out_height + out_y) * maps.out_width + out_x) * maps.out_stride;
      fn(tile);
    }
  }
}

// Cuts the rows of tiles of all images into blocks of at least `min_elements` results, none of them
// across images, and calls fn(block, image, begin, end) in parallel.
class RowBlocks {
 public:
  template <class W>
  static RowBlocks Of(W, const Maps& maps, int64_t min_elements) {
    const int64_t rows = W::NumTiles(maps.out_height, kTileRows, maps.pad_top);
    const int64_t row_elements = kTileRows * maps.out_width * maps.channels;
    return RowBlocks(maps.batch, rows, std::max<int64_t>(min_elements / row_elements, 1));
  }
  int64_t total() const { return batch_ * per_image_; }

  template <typename Fn>
  void ForEach(const Fn& fn) const {
    ParallelFor(total(), 1, [&](int64_t block, int64_t) HWY_ATTR {
      const int64_t first = block % per_image_ * block_rows_;
      fn(block, block / per_image_, first, std::min(rows_, first + block_rows_));
    });
  }

 private:
  RowBlocks(int64_t batch, int64_t rows, int64_t block_rows)
      : batch_(batch),
        rows_(rows),
        block_rows_(block_rows),
        per_image_(NumChunks(rows, block_rows)) {}
  int64_t batch_, rows_, block_rows_, per_image_;
};

// Kernels and sums over them are packed by vectors of channels, so that what a tile needs lies
// together: [C / lanes, K * K, lanes], the last vector filled up with zeros.
int64_t NumLanes() { return static_cast<int64_t>(hn::Lanes(FloatTag())); }

// A pass that makes every pixel of `out` the sum of its inputs times the taps.
struct Pass {
  Maps maps;
  const void* in;
  const float* weight;  // packed
  const float* bias;    // [C], or null
  void* out;
  bool accumulate;
};

// One vector of channels of a tile's outputs.
template <class W, bool kInside, typename T, typename L>
HWY_INLINE void ConvolveTile(const Pass& pass, const Tile<W>& tile, int64_t channel, L lanes) {
  const FloatTag df;
  const Maps& maps = pass.maps;
  const int64_t in_row_stride = maps.in_width * maps.in_stride;
  const T* in = static_cast<const T*>(pass.in) + tile.in_offset + channel;
  T* out = static_cast<T*>(pass.out) + tile.out_offset + channel;
  const float* weight = pass.weight + channel * W::kTaps;
  const FloatVec bias =
      pass.bias == nullptr ? hn::Zero(df) : LoadF32N(df, pass.bias + channel, lanes);
  FloatVec sums[kTileRows][kTileColumns];
  HWY_UNROLL(2)
  for (int r = 0; r < kTileRows; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < kTileColumns; ++c) sums[r][c] = bias;
  }
  // Rows of the kernel stay in registers for as long as rows of the tile meet them.
  FloatVec live[W::kLiveRows][W::kKernel];
  HWY_UNROLL(16)
  for (int i = 0; i < W::kInputRows; ++i) {
    HWY_UNROLL(2)
    for (int r = 0; r < kTileRows; ++r) {
      const int row = W::Tap(i, r);
      if (!W::IsTap(row) || !W::IsFirstUse(i, r)) continue;
      HWY_UNROLL(8)
      for (int k = 0; k < W::kKernel; ++k) {
        live[row % W::kLiveRows][k] = hn::Load(df, weight + (row * W::kKernel + k) * hn::Lanes(df));
      }
    }
    if (!tile.has_in_row[i]) continue;
    HWY_UNROLL(16)
    for (int j = 0; j < W::kInputColumns; ++j) {
      if (!kInside && !tile.has_in_column[j]) continue;
      const FloatVec v = LoadF32N(df, in + i * in_row_stride + j * maps.in_stride, lanes);
      HWY_UNROLL(2)
      for (int r = 0; r < kTileRows; ++r) {
        HWY_UNROLL(4)
        for (int c = 0; c < kTileColumns; ++c) {
          if (!W::IsTap(W::Tap(i, r)) || !W::IsTap(W::Tap(j, c))) continue;
          sums[r][c] = hn::MulAdd(v, live[W::Tap(i, r) % W::kLiveRows][W::Tap(j, c)], sums[r][c]);
        }
      }
    }
  }
  HWY_UNROLL(2)
  for (int r = 0; r < kTileRows; ++r) {
    if (!tile.has_out_row[r]) continue;
    HWY_UNROLL(4)
    for (int c = 0; c < kTileColumns; ++c) {
      if (!kInside && !tile.has_out_column[c]) continue;
      T* to = out + (r * maps.out_width + c) * maps.out_stride;
      const FloatVec before = pass.accumulate ? LoadF32N(df, to, lanes) : hn::Zero(df);
      StoreF32N(hn::Add(sums[r][c], before), df, to, lanes);
    }
  }
}

template <class W, typename T>
void Convolve(const Pass& pass) {
  RowBlocks::Of(W(), pass.maps, int64_t{1} << 14)
      .ForEach([&](int64_t, int64_t image, int64_t begin, int64_t end) HWY_ATTR {
        ForEachTile<W>(pass.maps, image, begin, end, [&](const Tile<W>& tile) HWY_ATTR {
          ForEachVector(FloatTag(), pass.maps.channels, [&](int64_t channel, auto lanes) HWY_ATTR {
            if (tile.inside) {
              ConvolveTile<W, true, T>(pass, tile, channel, lanes);
            } else {
              ConvolveTile<W, false, T>(pass, tile, channel, lanes);
            }
          });
        });
      });
}

// The sums over all pixels of dy times x, one for each tap, and of dy.
struct Correlation {
  Maps maps;
  const void* in;   // x
  const void* out;  // dy
};

// Adds one tile's share for one vector of channels to `sums`, packed as K * K + 1 taps. Sums of
// products are in registers for as long as rows of the tile meet their row of the kernel.
template <class W, bool kInside, typename T, typename L>
HWY_INLINE void CorrelateTile(const Correlation& args, const Tile<W>& tile, float* sums,
                              int64_t channel, L lanes) {
  const FloatTag df;
  const size_t vector = hn::Lanes(df);
  const Maps& maps = args.maps;
  const int64_t in_row_stride = maps.in_width * maps.in_stride;
  const T* in = static_cast<const T*>(args.in) + tile.in_offset + channel;
  const T* out = static_cast<const T*>(args.out) + tile.out_offset + channel;
  sums += channel * (W::kTaps + 1);
  FloatVec d[kTileRows][kTileColumns];
  FloatVec bias_sum = hn::Load(df, sums + W::kTaps * vector);
  HWY_UNROLL(2)
  for (int r = 0; r < kTileRows; ++r) {
    HWY_UNROLL(4)
    for (int c = 0; c < kTileColumns; ++c) {
      const bool has = tile.has_out_row[r] && (kInside || tile.has_out_column[c]);
      const T* from = out + (r * maps.out_width + c) * maps.out_stride;
      d[r][c] = has ? LoadF32N(df, from, lanes) : hn::Zero(df);
      bias_sum = hn::Add(bias_sum, d[r][c]);
    }
  }
  hn::Store(bias_sum, df, sums + W::kTaps * vector);
  FloatVec live[W::kLiveRows][W::kKernel];
  HWY_UNROLL(16)
  for (int i = 0; i < W::kInputRows; ++i) {
    if (W::IsTap(i)) {
      HWY_UNROLL(8)
      for (int k = 0; k < W::kKernel; ++k) {
        live[i % W::kLiveRows][k] = hn::Load(df, sums + (i * W::kKernel + k) * vector);
      }
    }
    if (tile.has_in_row[i]) {
      HWY_UNROLL(16)
      for (int j = 0; j < W::kInputColumns; ++j) {
        if (!kInside && !tile.has_in_column[j]) continue;
        const FloatVec v = LoadF32N(df, in + i * in_row_stride + j * maps.in_stride, lanes);
        HWY_UNROLL(2)
        for (int r = 0; r < kTileRows; ++r) {
          HWY_UNROLL(4)
          for (int c = 0; c < kTileColumns; ++c) {
            if (!W::IsTap(W::Tap(i, r)) || !W::IsTap(W::Tap(j, c))) continue;
            FloatVec& sum = live[W::Tap(i, r) % W::kLiveRows][W::Tap(j, c)];
            sum = hn::MulAdd(v, d[r][c], sum);
          }
        }
      }
    }
    const int done = i - (W::kLiveRows - 1);
    if (W::IsTap(done)) {
      HWY_UNROLL(8)
      for (int k = 0; k < W::kKernel; ++k) {
        hn::Store(live[done % W::kLiveRows][k], df, sums + (done * W::kKernel + k) * vector);
      }
    }
  }
}

template <class W, typename T>
void CorrelateRows(const Correlation& args, int64_t image, int64_t begin, int64_t end,
                   float* sums) {
  ForEachTile<W>(args.maps, image, begin, end, [&](const Tile<W>& tile) HWY_ATTR {
    ForEachVector(FloatTag(), args.maps.channels, [&](int64_t channel, auto lanes) HWY_ATTR {
      if (tile.inside) {
        CorrelateTile<W, true, T>(args, tile, sums, channel, lanes);
      } else {
        CorrelateTile<W, false, T>(args, tile, sums, channel, lanes);
      }
    });
  });
}

// Calls fn(Window()) for kernels of stride 1 or 2, and transposed ones of stride 2.
template <bool kTransposed, typename Fn>
void WithWindow(int64_t kernel_size, int64_t stride, const Fn& fn) {
  const auto with_kernel = [&](auto kernel) {
    constexpr int kKernel = decltype(kernel)::value;
    if constexpr (!kTransposed) {
      if (stride == 1) return fn(Window<kKernel, 1, false>());
    }
    fn(Window<kKernel, 2, kTransposed>());
  };
  if (kernel_size == 3) return with_kernel(std::integral_constant<int, 3>());
  if (kernel_size == 5) return with_kernel(std::integral_constant<int, 5>());
  with_kernel(std::integral_constant<int, 7>());
}

template <bool kTransposed>
void RunPass(const Pass& pass, const DepthwiseConvShape& shape, DType dtype) {
  WithWindow<kTransposed>(shape.kernel_size, shape.geometry.stride, [&](auto window) {
    WithFloatType(dtype, [&](auto type) { Convolve<decltype(window), decltype(type)>(pass); });
  });
}

// The kernel [C, K * K] packed, turned by 180 degrees on request. Adding x to the result is adding
// 1 to the middle tap.
Tensor Pack(const DepthwiseConvShape& shape, const float* weight, bool turned, bool residual) {
  const int64_t taps = shape.taps(), lanes = NumLanes();
  const int64_t vectors = NumChunks(shape.channels, lanes);
  Tensor packed = Tensor::Empty({vectors, taps, lanes}, DType::kF32);
  for (int64_t v = 0; v < vectors; ++v) {
    float* to = packed.data<float>() + v * taps * lanes;
    const int64_t filled = std::min(lanes, shape.channels - v * lanes);
    if (filled < lanes) std::fill_n(to, taps * lanes, 0.0f);
    for (int64_t c = 0; c < filled; ++c) {
      const float* from = weight + (v * lanes + c) * taps;
      for (int64_t t = 0; t < taps; ++t) to[t * lanes + c] = from[turned ? taps - 1 - t : t];
      if (residual) to[taps / 2 * lanes + c] += 1.0f;
    }
  }
  return packed;
}

// Adds up the partial sums, packed as K * K + 1 taps, and unpacks them.
void AddUp(const DepthwiseConvGradWeightArgs& args, const PartialSums& sums, int64_t packed) {
  const int64_t taps = args.shape.taps(), channels = args.shape.channels, lanes = NumLanes();
  const Tensor totals = Tensor::Empty({packed}, DType::kF32);
  sums.AddUp(0, packed, totals.data<float>(), /*accumulate=*/false);
  for (int64_t c = 0; c < channels; ++c) {
    const float* total = totals.data<float>() + c / lanes * lanes * (taps + 1) + c % lanes;
    for (int64_t t = 0; args.dweight != nullptr && t < taps; ++t) {
      float& to = args.dweight[c * taps + t];
      to = total[t * lanes] + (args.accumulate_dweight ? to : 0.0f);
    }
    if (args.dbias == nullptr) continue;
    args.dbias[c] = total[taps * lanes] + (args.accumulate_dbias ? args.dbias[c] : 0.0f);
  }
}

}  // namespace

void DepthwiseForward(const DepthwiseConvArgs& args) {
  const Tensor weight = Pack(args.shape, args.weight, /*turned=*/false, args.residual);
  RunPass<false>({.maps = MapsOf(args.shape, args.x_stride, args.y_stride),
                  .in = args.x,
                  .weight = weight.data<float>(),
                  .bias = args.bias,
                  .out = args.y,
                  .accumulate = args.accumulate},
                 args.shape, args.dtype);
}

void DepthwiseGradInput(const DepthwiseConvGradInputArgs& args) {
  const bool turned = args.shape.geometry.stride == 1;
  const Tensor weight = Pack(args.shape, args.weight, turned, args.residual);
  DepthwiseConvShape shape = args.shape.Turned();
  if (!turned) shape.geometry = args.shape.geometry;
  const Pass pass = {.maps = MapsOf(shape, args.dy_stride, args.dx_stride),
                     .in = args.dy,
                     .weight = weight.data<float>(),
                     .bias = nullptr,
                     .out = args.dx,
                     .accumulate = args.accumulate};
  if (turned) {
    RunPass<false>(pass, shape, args.dtype);
  } else {
    RunPass<true>(pass, shape, args.dtype);
  }
}

void DepthwiseGradWeight(const DepthwiseConvGradWeightArgs& args) {
  const Correlation correlation = {
      .maps = MapsOf(args.shape, args.x_stride, args.dy_stride), .in = args.x, .out = args.dy};
  const int64_t lanes = NumLanes();
  const int64_t width = NumChunks(args.shape.channels, lanes) * lanes * (args.shape.taps() + 1);
  WithWindow<false>(args.shape.kernel_size, args.shape.geometry.stride, [&](auto window) {
    using W = decltype(window);
    const auto blocks = RowBlocks::Of(window, correlation.maps, int64_t{1} << 15);
    const PartialSums sums(blocks.total(), width);
    WithFloatType(args.dtype, [&](auto type) {
      using T = decltype(type);
      blocks.ForEach([&](int64_t block, int64_t image, int64_t begin, int64_t end) HWY_ATTR {
        CorrelateRows<W, T>(correlation, image, begin, end, sums.chunk(block));
      });
    });
    AddUp(args, sums, width);
  });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(DepthwiseForward);
HWY_EXPORT(DepthwiseGradInput);
HWY_EXPORT(DepthwiseGradWeight);

void DepthwiseConvCpu(const DepthwiseConvArgs& args) {
  HWY_DYNAMIC_DISPATCH(DepthwiseForward)(args);
}
void DepthwiseConvGradInputCpu(const DepthwiseConvGradInputArgs& args) {
  HWY_DYNAMIC_DISPATCH(DepthwiseGradInput)(args);
}
void DepthwiseConvGradWeightCpu(const DepthwiseConvGradWeightArgs& args) {
  HWY_DYNAMIC_DISPATCH(DepthwiseGradWeight)(args);
}

REGISTER_KERNEL(depthwise_conv, Device::kCpu, DepthwiseConvCpu);
REGISTER_KERNEL(depthwise_conv_grad_input, Device::kCpu, DepthwiseConvGradInputCpu);
REGISTER_KERNEL(depthwise_conv_grad_weight, Device::kCpu, DepthwiseConvGradWeightCpu);

}  // namespace
}  // namespace tessera
#endif
