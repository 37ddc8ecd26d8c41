#include "core/cuda/column_sums.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/layer_norm/layer_norm_kernel.h"

namespace tessera {
namespace {

constexpr int kWarps = 4;  // per block
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kMaxPacks = 4;

// A warp works on a row. Rows of up to 1024 channels stay in registers, as packs of 8 channels per
// lane; pack p of a lane starts at this channel.
DEVICE int64_t ChannelOf(int p) { return (int64_t{p} * kWarpSize + Lane()) * kPackedElements; }

template <int kPacks, typename X, typename Y>
KERNEL(kThreads)
NormalizeInRegisters(LayerNormArgs args) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + WarpIndex();
  if (row >= args.rows) return;
  const X* x = static_cast<const X*>(args.x) + row * args.channels;
  Y* y = static_cast<Y*>(args.y) + row * args.channels;
  const float inverse_channels = 1.0f / static_cast<float>(args.channels);
  float v[kPacks][kPackedElements] = {};
  float sum = 0;
  UNROLL for (int p = 0; p < kPacks; ++p) {
    if (ChannelOf(p) >= args.channels) continue;
    LoadFloats(x + ChannelOf(p), v[p]);
    UNROLL for (int j = 0; j < kPackedElements; ++j) sum += v[p][j];
  }
  const float mean = WarpSum(sum) * inverse_channels;
  float squares = 0;
  UNROLL for (int p = 0; p < kPacks; ++p) {
    if (ChannelOf(p) >= args.channels) continue;
    UNROLL for (int j = 0; j < kPackedElements; ++j) {
      v[p][j] -= mean;
      squares = fmaf(v[p][j], v[p][j], squares);
    }
  }
  const float rstd = 1.0f / sqrtf(WarpSum(squares) * inverse_channels + args.eps);
  UNROLL for (int p = 0; p < kPacks; ++p) {
    if (ChannelOf(p) >= args.channels) continue;
    float gamma[kPackedElements], beta[kPackedElements];
    LoadFloats(args.gamma + ChannelOf(p), gamma);
    LoadFloats(args.beta + ChannelOf(p), beta);
    UNROLL for (int j = 0; j < kPackedElements; ++j) {
      v[p][j] = fmaf(v[p][j] * rstd, gamma[j], beta[j]);
    }
    StoreFloats(v[p], y + ChannelOf(p));
  }
  if (Lane() == 0) {
    args.mean[row] = mean;
    args.rstd[row] = rstd;
  }
}

// Rows of any length and alignment.
template <typename X, typename Y>
KERNEL(kThreads)
NormalizeAnyRows(LayerNormArgs args) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + WarpIndex();
  if (row >= args.rows) return;
  const X* x = static_cast<const X*>(args.x) + row * args.channels;
  Y* y = static_cast<Y*>(args.y) + row * args.channels;
  const float inverse_channels = 1.0f / static_cast<float>(args.channels);
  float sum = 0;
  for (int64_t c = Lane(); c < args.channels; c += kWarpSize) sum += LoadFloat(x + c);
  const float mean = WarpSum(sum) * inverse_channels;
  float squares = 0;
  for (int64_t c = Lane(); c < args.channels; c += kWarpSize) {
    const float d = LoadFloat(x + c) - mean;
    squares = fmaf(d, d, squares);
  }
  const float rstd = 1.0f / sqrtf(WarpSum(squares) * inverse_channels + args.eps);
  for (int64_t c = Lane(); c < args.channels; c += kWarpSize) {
    StoreFloat(fmaf((LoadFloat(x + c) - mean) * rstd, args.gamma[c], args.beta[c]), y + c);
  }
  if (Lane() == 0) {
    args.mean[row] = mean;
    args.rstd[row] = rstd;
  }
}

// With g = dy * gamma and x_hat = (x - mean) * rstd, dx = rstd * (g - mean(g) - x_hat * mean(g *
// x_hat)). Reads dy and x once: a block goes through chunk_rows rows and sums dgamma and dbeta in
// registers, then over its warps to partials [chunks, 2, channels].
template <int kPacks, typename DY, typename X>
KERNEL(kThreads)
BackwardInRegisters(LayerNormBackwardArgs args, int64_t chunk_rows, float* partials) {
  SHARED_ARRAY(float, shared, kWarps* kWarpSize* kPackedElements);
  const float inverse_channels = 1.0f / static_cast<float>(args.channels);
  const int64_t begin = blockIdx.x * chunk_rows;
  const int64_t end = begin + chunk_rows < args.rows ? begin + chunk_rows : args.rows;
  float sums[2][kPacks][kPackedElements] = {};
  for (int64_t row = begin + WarpIndex(); row < end; row += kWarps) {
    const DY* dy = static_cast<const DY*>(args.dy) + row * args.channels;
    const X* x = static_cast<const X*>(args.x) + row * args.channels;
    X* dx = static_cast<X*>(args.dx) + row * args.channels;
    const float mean = args.mean[row], rstd = args.rstd[row];
    float g[kPacks][kPackedElements] = {}, x_hat[kPacks][kPackedElements] = {};
    float sum_g = 0, sum_g_x_hat = 0;
    UNROLL for (int p = 0; p < kPacks; ++p) {
      if (ChannelOf(p) >= args.channels) continue;
      float gamma[kPackedElements];
      LoadFloats(args.gamma + ChannelOf(p), gamma);
      LoadFloats(dy + ChannelOf(p), g[p]);
      LoadFloats(x + ChannelOf(p), x_hat[p]);
      UNROLL for (int j = 0; j < kPackedElements; ++j) {
        x_hat[p][j] = (x_hat[p][j] - mean) * rstd;
        sums[0][p][j] = fmaf(g[p][j], x_hat[p][j], sums[0][p][j]);
        sums[1][p][j] += g[p][j];
        g[p][j] *= gamma[j];
        sum_g += g[p][j];
        sum_g_x_hat = fmaf(g[p][j], x_hat[p][j], sum_g_x_hat);
      }
    }
    const float mean_g = WarpSum(sum_g) * inverse_channels;
    const float mean_g_x_hat = WarpSum(sum_g_x_hat) * inverse_channels;
    if (args.dx == nullptr) continue;
    UNROLL for (int p = 0; p < kPacks; ++p) {
      if (ChannelOf(p) >= args.channels) continue;
      float d[kPackedElements] = {};
      if (args.accumulate_dx) LoadFloats(dx + ChannelOf(p), d);
      UNROLL for (int j = 0; j < kPackedElements; ++j) {
        d[j] = fmaf(rstd, g[p][j] - mean_g - x_hat[p][j] * mean_g_x_hat, d[j]);
      }
      StoreFloats(d, dx + ChannelOf(p));
    }
  }
  UNROLL for (int s = 0; s < 2; ++s) {
    UNROLL for (int p = 0; p < kPacks; ++p) {
      BLOCK_SYNC();
      UNROLL for (int j = 0; j < kPackedElements; ++j) {
        shared[threadIdx.x * kPackedElements + j] = sums[s][p][j];
      }
      BLOCK_SYNC();
      for (int i = static_cast<int>(threadIdx.x); i < kWarpSize * kPackedElements; i += kThreads) {
        const int64_t channel = int64_t{p} * kWarpSize * kPackedElements + i;
        if (channel >= args.channels) continue;
        float total = 0;
        UNROLL for (int w = 0; w < kWarps; ++w) {
          total += shared[w * kWarpSize * kPackedElements + i];
        }
        partials[(int64_t{blockIdx.x} * 2 + s) * args.channels + channel] = total;
      }
    }
  }
}

template <typename DY, typename X>
KERNEL(kThreads)
BackwardAnyRows(LayerNormBackwardArgs args) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + WarpIndex();
  if (row >= args.rows) return;
  const DY* dy = static_cast<const DY*>(args.dy) + row * args.channels;
  const X* x = static_cast<const X*>(args.x) + row * args.channels;
  X* dx = static_cast<X*>(args.dx) + row * args.channels;
  const float mean = args.mean[row], rstd = args.rstd[row];
  const float inverse_channels = 1.0f / static_cast<float>(args.channels);
  float sum_g = 0, sum_g_x_hat = 0;
  for (int64_t c = Lane(); c < args.channels; c += kWarpSize) {
    const float g = LoadFloat(dy + c) * args.gamma[c];
    sum_g += g;
    sum_g_x_hat = fmaf(g, (LoadFloat(x + c) - mean) * rstd, sum_g_x_hat);
  }
  const float mean_g = WarpSum(sum_g) * inverse_channels;
  const float mean_g_x_hat = WarpSum(sum_g_x_hat) * inverse_channels;
  for (int64_t c = Lane(); c < args.channels; c += kWarpSize) {
    const float g = LoadFloat(dy + c) * args.gamma[c];
    const float x_hat = (LoadFloat(x + c) - mean) * rstd;
    const float before = args.accumulate_dx ? LoadFloat(dx + c) : 0.0f;
    StoreFloat(fmaf(rstd, g - mean_g - x_hat * mean_g_x_hat, before), dx + c);
  }
}

template <typename DY, typename X>
struct ParameterGradients {
  const DY* dy;
  const X* x;
  const float* mean;
  const float* rstd;
  int64_t channels;

  template <int kWidth>
  DEVICE void Run(int64_t row, int64_t channel, float (&sums)[2][kWidth]) const {
    float d[kWidth], v[kWidth];
    LoadFloats(dy + row * channels + channel, d);
    LoadFloats(x + row * channels + channel, v);
    UNROLL for (int j = 0; j < kWidth; ++j) {
      sums[0][j] = fmaf(d[j], (v[j] - mean[row]) * rstd[row], sums[0][j]);
      sums[1][j] += d[j];
    }
  }
};

// Calls fn(packs) with a constant, packs of 8 channels being enough for a row; false if none are.
template <typename Fn>
bool WithPacks(int64_t channels, const Fn& fn) {
  const int64_t packs = CeilDiv(channels, kWarpSize * kPackedElements);
  if (channels % kPackedElements != 0 || packs > kMaxPacks) return false;
  if (packs == 1) fn(std::integral_constant<int, 1>());
  if (packs == 2) fn(std::integral_constant<int, 2>());
  if (packs == 3) fn(std::integral_constant<int, 3>());
  if (packs == 4) fn(std::integral_constant<int, 4>());
  return true;
}

template <typename X, typename Y>
void Normalize(const LayerNormArgs& args) {
  const Extent grid = {.x = CeilDiv(args.rows, kWarps)}, block = {.x = kThreads};
  const bool aligned = IsAligned16(args.x) && IsAligned16(args.y) && IsAligned16(args.gamma) &&
                       IsAligned16(args.beta);
  const auto launch = [&](auto packs) {
    Launch<NormalizeInRegisters<decltype(packs)::value, X, Y>>(grid, block, 0, CurrentStream(),
                                                               args);
  };
  if (aligned && WithPacks(args.channels, launch)) return;
  Launch<NormalizeAnyRows<X, Y>>(grid, block, 0, CurrentStream(), args);
}

template <typename DY, typename X>
void Backward(const LayerNormBackwardArgs& args) {
  const int64_t chunk_rows = SumChunkRows(args.rows), chunks = CeilDiv(args.rows, chunk_rows);
  const Workspace<float> partials(chunks * 2 * args.channels);
  const bool aligned = IsAligned16(args.dy) && IsAligned16(args.x) && IsAligned16(args.gamma) &&
                       IsAligned16(args.dx);
  const auto launch = [&](auto packs) {
    Launch<BackwardInRegisters<decltype(packs)::value, DY, X>>(
        {.x = chunks}, {.x = kThreads}, 0, CurrentStream(), args, chunk_rows, partials.data());
  };
  if (!aligned || !WithPacks(args.channels, launch)) {
    const ParameterGradients<DY, X> gradients = {static_cast<const DY*>(args.dy),
                                                 static_cast<const X*>(args.x), args.mean,
                                                 args.rstd, args.channels};
    LaunchPartialColumnSums<1, 2>(gradients, args.rows, args.channels, chunk_rows, partials.data());
    if (args.dx != nullptr) {
      Launch<BackwardAnyRows<DY, X>>({.x = CeilDiv(args.rows, kWarps)}, {.x = kThreads}, 0,
                                     CurrentStream(), args);
    }
  }
  if (args.dgamma != nullptr) {
    LaunchAddUpPartials(partials.data(), chunks, 2 * args.channels, args.channels,
                        {.out = args.dgamma, .accumulate = args.accumulate_dgamma});
  }
  if (args.dbeta != nullptr) {
    LaunchAddUpPartials(partials.data() + args.channels, chunks, 2 * args.channels, args.channels,
                        {.out = args.dbeta, .accumulate = args.accumulate_dbeta});
  }
}

void LayerNormCuda(const LayerNormArgs& args) {
  WithFloatTypes(args.x_dtype, args.y_dtype,
                 [&](auto x, auto y) { Normalize<decltype(x), decltype(y)>(args); });
}

void LayerNormBackwardCuda(const LayerNormBackwardArgs& args) {
  WithFloatTypes(args.dy_dtype, args.x_dtype,
                 [&](auto dy, auto x) { Backward<decltype(dy), decltype(x)>(args); });
}

REGISTER_CUDA_KERNEL(layer_norm, LayerNormCuda);
REGISTER_CUDA_KERNEL(layer_norm_backward, LayerNormBackwardCuda);

}  // namespace
}  // namespace tessera
