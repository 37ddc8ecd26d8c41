#include "core/cuda/column_sums.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/depthwise_conv/depthwise_conv_kernel.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

constexpr int kThreads = 128;
constexpr int kTaps = 9;
constexpr int kStrip = 8;  // output pixels of one thread, side by side
constexpr int kPack = 4;   // channels of one thread, where their number allows

// The map that a strip lies in.
struct Map {
  int64_t height, width, channels;

  HOST_DEVICE int64_t strips() const { return (width + kStrip - 1) / kStrip; }
};

// Strip `index` of all images, counting along rows first.
struct Strip {
  DEVICE Strip(const Map& map, int64_t index)
      : x(index % map.strips() * kStrip),
        y(index / map.strips() % map.height),
        row(index / map.strips()) {}
  DEVICE int64_t Pixel(const Map& map, int64_t px) const { return row * map.width + px; }

  int64_t x, y, row;  // first column; row in its image, and in the batch
};

// Column px of the three input rows around a strip; zeros beyond the map.
template <int kWidth, typename T>
DEVICE void LoadColumn(const Map& map, const Strip& strip, const T* x, int64_t channel, int64_t px,
                       float (&column)[3][kWidth]) {
  UNROLL for (int r = 0; r < 3; ++r) {
    const int64_t py = strip.y + r - 1;
    if (px >= 0 && px < map.width && py >= 0 && py < map.height) {
      LoadFloats(x + (strip.Pixel(map, px) + (r - 1) * map.width) * map.channels + channel,
                 column[r]);
    } else {
      UNROLL for (int j = 0; j < kWidth; ++j) column[r][j] = 0.0f;
    }
  }
}

// Calls fn(px, window) for the pixels of a strip; window[c % 3] is input column c = px - 1 to px +
// 1, and `first` the place of column px - 1. Each column is loaded once.
template <int kWidth, typename T, typename Fn>
DEVICE void ForEachPixel(const Map& map, const Strip& strip, const T* x, int64_t channel,
                         const Fn& fn) {
  float window[3][3][kWidth];
  LoadColumn(map, strip, x, channel, strip.x - 1, window[0]);
  LoadColumn(map, strip, x, channel, strip.x, window[1]);
  UNROLL for (int i = 0; i < kStrip; ++i) {
    const int64_t px = strip.x + i;
    if (px >= map.width) break;
    LoadColumn(map, strip, x, channel, px + 1, window[(i + 2) % 3]);
    fn(px, window, i % 3);
  }
}

template <int kWidth, typename T>
KERNEL(kThreads)
Convolve(DepthwiseConvArgs args, Map map, int64_t strips) {
  const int64_t groups = map.channels / kWidth;
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= strips * groups) return;
  const int64_t channel = index % groups * kWidth;
  const Strip strip(map, index / groups);
  float weight[kTaps][kWidth], bias[kWidth];
  UNROLL for (int j = 0; j < kWidth; ++j) {
    UNROLL for (int t = 0; t < kTaps; ++t) {
      weight[t][j] = args.weight[(channel + j) * kTaps + (args.transposed ? kTaps - 1 - t : t)];
    }
    bias[j] = args.bias == nullptr ? 0.0f : args.bias[channel + j];
  }
  T* y = static_cast<T*>(args.y);
  ForEachPixel<kWidth>(
      map, strip, static_cast<const T*>(args.x), channel,
      [&](int64_t px, const float(&window)[3][3][kWidth], int first) {
        float sum[kWidth];
        T* out = y + strip.Pixel(map, px) * map.channels + channel;
        if (args.accumulate) {
          LoadFloats(out, sum);
          UNROLL for (int j = 0; j < kWidth; ++j) sum[j] += bias[j];
        } else {
          UNROLL for (int j = 0; j < kWidth; ++j) sum[j] = bias[j];
        }
        UNROLL for (int t = 0; t < kTaps; ++t) {
          UNROLL for (int j = 0; j < kWidth; ++j) {
            sum[j] = fmaf(window[(first + t % 3) % 3][t / 3][j], weight[t][j], sum[j]);
          }
        }
        if (args.residual) {
          UNROLL for (int j = 0; j < kWidth; ++j) sum[j] += window[(first + 1) % 3][1][j];
        }
        StoreFloats(sum, out);
      });
}

// The gradients of the 9 weights and the bias, as sums over the strips of all images.
template <typename T>
struct WeightGradients {
  const T* dy;
  const T* x;
  Map map;

  template <int kWidth>
  DEVICE void Run(int64_t index, int64_t channel, float (&sums)[kTaps + 1][kWidth]) const {
    const Strip strip(map, index);
    ForEachPixel<kWidth>(
        map, strip, x, channel, [&](int64_t px, const float(&window)[3][3][kWidth], int first) {
          float d[kWidth];
          LoadFloats(dy + strip.Pixel(map, px) * map.channels + channel, d);
          UNROLL for (int j = 0; j < kWidth; ++j) {
            UNROLL for (int t = 0; t < kTaps; ++t) {
              sums[t][j] = fmaf(d[j], window[(first + t % 3) % 3][t / 3][j], sums[t][j]);
            }
            sums[kTaps][j] += d[j];
          }
        });
  }
};

void DepthwiseConvCuda(const DepthwiseConvArgs& args) {
  const Map map = {args.height, args.width, args.channels};
  const int64_t strips = args.batch * args.height * map.strips();
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    if (args.channels % kPack == 0 && IsAligned16(args.x) && IsAligned16(args.y)) {
      Launch<Convolve<kPack, T>>({.x = CeilDiv(strips * (args.channels / kPack), kThreads)},
                                 {.x = kThreads}, 0, CurrentStream(), args, map, strips);
    } else {
      Launch<Convolve<1, T>>({.x = CeilDiv(strips * args.channels, kThreads)}, {.x = kThreads}, 0,
                             CurrentStream(), args, map, strips);
    }
  });
}

void DepthwiseConvGradWeightCuda(const DepthwiseConvGradWeightArgs& args) {
  const Map map = {args.height, args.width, args.channels};
  const int64_t strips = args.batch * args.height * map.strips();
  const int64_t chunk_strips = SumChunkRows(strips), chunks = CeilDiv(strips, chunk_strips);
  const int64_t stride = (kTaps + 1) * args.channels;
  const Workspace<float> partials(chunks * stride);
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    const WeightGradients<T> fn = {static_cast<const T*>(args.dy), static_cast<const T*>(args.x),
                                   map};
    if (args.channels % kPack == 0 && IsAligned16(args.x) && IsAligned16(args.dy)) {
      LaunchPartialColumnSums<kPack, kTaps + 1>(fn, strips, args.channels, chunk_strips,
                                                partials.data());
    } else {
      LaunchPartialColumnSums<1, kTaps + 1>(fn, strips, args.channels, chunk_strips,
                                            partials.data());
    }
  });
  if (args.dweight != nullptr) {
    LaunchAddUpPartials(partials.data(), chunks, stride, args.channels,
                        {.out = args.dweight,
                         .sums = kTaps,
                         .sum_step = 1,
                         .column_step = kTaps,
                         .accumulate = args.accumulate_dweight});
  }
  if (args.dbias != nullptr) {
    LaunchAddUpPartials(partials.data() + kTaps * args.channels, chunks, stride, args.channels,
                        {.out = args.dbias, .accumulate = args.accumulate_dbias});
  }
}

REGISTER_CUDA_KERNEL(depthwise_conv, DepthwiseConvCuda);
REGISTER_CUDA_KERNEL(depthwise_conv_grad_weight, DepthwiseConvGradWeightCuda);

}  // namespace
}  // namespace tessera
