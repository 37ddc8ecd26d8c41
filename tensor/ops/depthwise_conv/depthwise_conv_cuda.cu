#include <type_traits>

#include "core/cuda/column_sums.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/depthwise_conv/depthwise_conv_kernel.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

constexpr int kThreads = 128;
constexpr int kStrip = 8;  // output pixels of one thread, side by side

// Channels of one thread, where their number allows: what a window of the kernel's size holds must
// fit into the registers.
constexpr int PackOf(int kernel) { return kernel == 3 ? 4 : kernel == 5 ? 2 : 1; }

// The maps that a strip lies in; pixels are `stride` elements apart.
struct Maps {
  int64_t channels;
  int64_t in_height, in_width, in_stride;
  int64_t out_height, out_width, out_stride;
  int64_t pad_top, pad_left;

  HOST_DEVICE int64_t strips() const { return (out_width + kStrip - 1) / kStrip; }
};

Maps MapsOf(const DepthwiseConvShape& s, int64_t in_stride, int64_t out_stride) {
  return {.channels = s.channels,
          .in_height = s.height,
          .in_width = s.width,
          .in_stride = in_stride,
          .out_height = s.out_height,
          .out_width = s.out_width,
          .out_stride = out_stride,
          .pad_top = s.geometry.pad_top,
          .pad_left = s.geometry.pad_left};
}

// Strip `index` of all images, counting along rows first.
struct Strip {
  DEVICE Strip(const Maps& maps, int64_t index)
      : x(index % maps.strips() * kStrip),
        row(index / maps.strips()),
        y(row % maps.out_height),
        image(row / maps.out_height) {}
  // Where output pixel px of the strip's row lies.
  DEVICE int64_t Out(const Maps& maps, int64_t px) const {
    return (row * maps.out_width + px) * maps.out_stride;
  }

  int64_t x, row, y, image;  // first column; row in the batch, and in its image
};

// The input pixels under the kernel at one output pixel: column j of the kernel is columns[(first +
// j) % kKernel], so that columns stay where they are as the window moves on.
template <int kKernel, int kWidth>
struct Window {
  float columns[kKernel][kKernel][kWidth];
  int first = 0;

  DEVICE const float* At(int tap) const {
    return columns[(first + tap % kKernel) % kKernel][tap / kKernel];
  }
};

// Column px of the rows from `top` on; zeros beyond the map.
template <int kKernel, int kWidth, typename T>
DEVICE void LoadColumn(const Maps& maps, const Strip& strip, const T* in, int64_t channel,
                       int64_t top, int64_t px, float (&column)[kKernel][kWidth]) {
  UNROLL for (int r = 0; r < kKernel; ++r) {
    const int64_t py = top + r;
    if (px >= 0 && px < maps.in_width && py >= 0 && py < maps.in_height) {
      const int64_t pixel = (strip.image * maps.in_height + py) * maps.in_width + px;
      LoadFloats(in + pixel * maps.in_stride + channel, column[r]);
    } else {
      UNROLL for (int j = 0; j < kWidth; ++j) column[r][j] = 0.0f;
    }
  }
}

// Calls fn(px, window) for the pixels of a strip; each input column is loaded once.
template <int kKernel, int kStride, int kWidth, typename T, typename Fn>
DEVICE void ForEachPixel(const Maps& maps, const Strip& strip, const T* in, int64_t channel,
                         const Fn& fn) {
  Window<kKernel, kWidth> window;
  const int64_t top = strip.y * kStride - maps.pad_top, left = strip.x * kStride - maps.pad_left;
  UNROLL for (int j = 0; j < kKernel - kStride; ++j) {
    LoadColumn(maps, strip, in, channel, top, left + j, window.columns[j]);
  }
  UNROLL for (int i = 0; i < kStrip; ++i) {
    const int64_t px = strip.x + i;
    if (px >= maps.out_width) break;
    UNROLL for (int j = (i - 1) * kStride + kKernel; j < i * kStride + kKernel; ++j) {
      LoadColumn(maps, strip, in, channel, top, left + j, window.columns[j % kKernel]);
    }
    window.first = i * kStride % kKernel;
    fn(px, window);
  }
}

// What a thread starts the sums of an output with.
template <int kWidth, typename T>
DEVICE void LoadSums(const T* out, const float* bias, bool accumulate, float (&sum)[kWidth]) {
  if (accumulate) {
    LoadFloats(out, sum);
  } else {
    UNROLL for (int j = 0; j < kWidth; ++j) sum[j] = 0.0f;
  }
  if (bias == nullptr) return;
  UNROLL for (int j = 0; j < kWidth; ++j) sum[j] += bias[j];
}

struct Pass {
  Maps maps;
  const void* in;
  const float* weight;  // [C, K, K]
  const float* bias;
  void* out;
  bool turned;    // the kernel is to be turned by 180 degrees
  bool residual;  // stride 1 only
  bool accumulate;
};

template <int kKernel, int kStride, int kWidth, typename T>
KERNEL(kThreads)
Convolve(Pass pass, int64_t strips) {
  constexpr int kTaps = kKernel * kKernel;
  const Maps& maps = pass.maps;
  const int64_t groups = maps.channels / kWidth;
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= strips * groups) return;
  const int64_t channel = index % groups * kWidth;
  const Strip strip(maps, index / groups);
  const float* bias = pass.bias == nullptr ? nullptr : pass.bias + channel;
  float weight[kTaps][kWidth];
  UNROLL for (int j = 0; j < kWidth; ++j) {
    UNROLL for (int t = 0; t < kTaps; ++t) {
      weight[t][j] = pass.weight[(channel + j) * kTaps + (pass.turned ? kTaps - 1 - t : t)];
    }
  }
  T* out = static_cast<T*>(pass.out) + channel;
  ForEachPixel<kKernel, kStride, kWidth>(maps, strip, static_cast<const T*>(pass.in), channel,
                                         [&](int64_t px, const Window<kKernel, kWidth>& window) {
                                           float sum[kWidth];
                                           T* to = out + strip.Out(maps, px);
                                           LoadSums(to, bias, pass.accumulate, sum);
                                           UNROLL for (int t = 0; t < kTaps; ++t) {
                                             UNROLL for (int j = 0; j < kWidth; ++j) {
                                               sum[j] = fmaf(window.At(t)[j], weight[t][j], sum[j]);
                                             }
                                           }
                                           if (pass.residual) {
                                             UNROLL for (int j = 0; j < kWidth; ++j) sum[j] +=
                                                 window.At(kTaps / 2)[j];
                                           }
                                           StoreFloats(sum, to);
                                         });
}

// The gradient of the input for a stride above 1: a thread gathers the outputs that one pixel had a
// part in. `in` is dy, and `out` dx.
template <int kKernel, int kStride, int kWidth, typename T>
KERNEL(kThreads)
ConvolveTransposed(Pass pass, int64_t pixels) {
  const Maps& maps = pass.maps;
  const int64_t groups = maps.channels / kWidth;
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= pixels * groups) return;
  const int64_t channel = index % groups * kWidth, pixel = index / groups;
  const int64_t x = pixel % maps.out_width + maps.pad_left;
  const int64_t y = pixel / maps.out_width % maps.out_height + maps.pad_top;
  const int64_t image = pixel / maps.out_width / maps.out_height;
  const T* in = static_cast<const T*>(pass.in) + channel;
  T* out = static_cast<T*>(pass.out) + pixel * maps.out_stride + channel;
  float sum[kWidth];
  LoadSums(out, nullptr, pass.accumulate, sum);
  for (int ky = static_cast<int>(y % kStride); ky < kKernel; ky += kStride) {
    const int64_t in_y = (y - ky) / kStride;
    if (y < ky || in_y >= maps.in_height) continue;
    for (int kx = static_cast<int>(x % kStride); kx < kKernel; kx += kStride) {
      const int64_t in_x = (x - kx) / kStride;
      if (x < kx || in_x >= maps.in_width) continue;
      float v[kWidth];
      LoadFloats(in + ((image * maps.in_height + in_y) * maps.in_width + in_x) * maps.in_stride, v);
      UNROLL for (int j = 0; j < kWidth; ++j) {
        const int64_t tap = (channel + j) * kKernel * kKernel + ky * kKernel + kx;
        sum[j] = fmaf(v[j], pass.weight[tap], sum[j]);
      }
    }
  }
  StoreFloats(sum, out);
}

// The gradients of the weights and the bias, as sums over the strips of all images.
template <int kKernel, int kStride, typename T>
struct WeightGradients {
  static constexpr int kTaps = kKernel * kKernel;
  const T* dy;
  const T* x;
  Maps maps;

  template <int kWidth>
  DEVICE void Run(int64_t index, int64_t channel, float (&sums)[kTaps + 1][kWidth]) const {
    const Strip strip(maps, index);
    ForEachPixel<kKernel, kStride, kWidth>(
        maps, strip, x, channel, [&](int64_t px, const Window<kKernel, kWidth>& window) {
          float d[kWidth];
          LoadFloats(dy + strip.Out(maps, px) + channel, d);
          UNROLL for (int j = 0; j < kWidth; ++j) {
            UNROLL for (int t = 0; t < kTaps; ++t) {
              sums[t][j] = fmaf(d[j], window.At(t)[j], sums[t][j]);
            }
            sums[kTaps][j] += d[j];
          }
        });
  }
};

// Calls fn(kernel size, stride, T()) with the first two as integral constants.
template <typename Fn>
void WithKernel(const DepthwiseConvShape& shape, DType dtype, const Fn& fn) {
  const auto with_size = [&](auto size) {
    WithFloatType(dtype, [&](auto type) {
      if (shape.geometry.stride == 1) return fn(size, std::integral_constant<int, 1>(), type);
      fn(size, std::integral_constant<int, 2>(), type);
    });
  };
  if (shape.kernel_size == 3) return with_size(std::integral_constant<int, 3>());
  if (shape.kernel_size == 5) return with_size(std::integral_constant<int, 5>());
  with_size(std::integral_constant<int, 7>());
}

bool UsesPacks(const Maps& maps, int pack, const void* in, const void* out) {
  return maps.channels % pack == 0 && maps.in_stride % pack == 0 && maps.out_stride % pack == 0 &&
         IsAligned16(in) && IsAligned16(out);
}

// A thread for each of `units` and each group of channels: `pack` of them to a thread of kPacked,
// one to a thread of kSingle.
template <auto kPacked, auto kSingle>
void LaunchPass(const Pass& pass, int pack, int64_t units) {
  const int64_t channels = pass.maps.channels;
  if (UsesPacks(pass.maps, pack, pass.in, pass.out)) {
    Launch<kPacked>({.x = CeilDiv(units * (channels / pack), kThreads)}, {.x = kThreads}, 0,
                    CurrentStream(), pass, units);
  } else {
    Launch<kSingle>({.x = CeilDiv(units * channels, kThreads)}, {.x = kThreads}, 0, CurrentStream(),
                    pass, units);
  }
}

void RunPass(const Pass& pass, const DepthwiseConvShape& shape, DType dtype) {
  const int64_t strips = shape.batch * shape.out_height * pass.maps.strips();
  WithKernel(shape, dtype, [&](auto size, auto stride, auto type) {
    using T = decltype(type);
    LaunchPass<Convolve<size(), stride(), PackOf(size()), T>, Convolve<size(), stride(), 1, T>>(
        pass, PackOf(size()), strips);
  });
}

void DepthwiseConvCuda(const DepthwiseConvArgs& args) {
  RunPass({.maps = MapsOf(args.shape, args.x_stride, args.y_stride),
           .in = args.x,
           .weight = args.weight,
           .bias = args.bias,
           .out = args.y,
           .turned = false,
           .residual = args.residual,
           .accumulate = args.accumulate},
          args.shape, args.dtype);
}

void DepthwiseConvGradInputCuda(const DepthwiseConvGradInputArgs& args) {
  const DepthwiseConvShape turned = args.shape.Turned();
  Pass pass = {.maps = MapsOf(turned, args.dy_stride, args.dx_stride),
               .in = args.dy,
               .weight = args.weight,
               .bias = nullptr,
               .out = args.dx,
               .turned = true,
               .residual = args.residual,
               .accumulate = args.accumulate};
  if (args.shape.geometry.stride == 1) return RunPass(pass, turned, args.dtype);
  pass.maps.pad_top = args.shape.geometry.pad_top;
  pass.maps.pad_left = args.shape.geometry.pad_left;
  const int64_t pixels = turned.batch * turned.out_height * turned.out_width;
  WithKernel(args.shape, args.dtype, [&](auto size, auto stride, auto type) {
    using T = decltype(type);
    LaunchPass<ConvolveTransposed<size(), stride(), PackOf(size()), T>,
               ConvolveTransposed<size(), stride(), 1, T>>(pass, PackOf(size()), pixels);
  });
}

void DepthwiseConvGradWeightCuda(const DepthwiseConvGradWeightArgs& args) {
  const Maps maps = MapsOf(args.shape, args.x_stride, args.dy_stride);
  const int64_t channels = args.shape.channels, taps = args.shape.taps();
  const int64_t strips = args.shape.batch * args.shape.out_height * maps.strips();
  const int64_t chunk_strips = SumChunkRows(strips), chunks = CeilDiv(strips, chunk_strips);
  const int64_t stride = (taps + 1) * channels;
  const Workspace<float> partials(chunks * stride);
  WithKernel(args.shape, args.dtype, [&](auto size, auto kernel_stride, auto type) {
    using T = decltype(type);
    constexpr int kPack = PackOf(size()), kSums = size() * size() + 1;
    const WeightGradients<size(), kernel_stride(), T> fn = {static_cast<const T*>(args.dy),
                                                            static_cast<const T*>(args.x), maps};
    if (UsesPacks(maps, kPack, args.x, args.dy)) {
      LaunchPartialColumnSums<kPack, kSums>(fn, strips, channels, chunk_strips, partials.data());
    } else {
      LaunchPartialColumnSums<1, kSums>(fn, strips, channels, chunk_strips, partials.data());
    }
  });
  if (args.dweight != nullptr) {
    LaunchAddUpPartials(partials.data(), chunks, stride, channels,
                        {.out = args.dweight,
                         .sums = taps,
                         .sum_step = 1,
                         .column_step = taps,
                         .accumulate = args.accumulate_dweight});
  }
  if (args.dbias != nullptr) {
    LaunchAddUpPartials(partials.data() + taps * channels, chunks, stride, channels,
                        {.out = args.dbias, .accumulate = args.accumulate_dbias});
  }
}

REGISTER_CUDA_KERNEL(depthwise_conv, DepthwiseConvCuda);
REGISTER_CUDA_KERNEL(depthwise_conv_grad_input, DepthwiseConvGradInputCuda);
REGISTER_CUDA_KERNEL(depthwise_conv_grad_weight, DepthwiseConvGradWeightCuda);

}  // namespace
}  // namespace tessera
