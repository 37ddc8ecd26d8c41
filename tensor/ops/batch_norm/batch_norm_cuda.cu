#include "core/cuda/column_sums.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/activation/activation_cuda.h"
#include "tensor/ops/batch_norm/batch_norm_kernel.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

// Channels c to c + kCount - 1 of the transform.
template <int kCount>
struct Channels {
  DEVICE Channels(const BatchNormAffine& affine, int64_t c) {
    LoadFloats(affine.mean + c, mean);
    LoadFloats(affine.rstd + c, rstd);
    LoadFloats(affine.gamma + c, gamma);
    LoadFloats(affine.beta + c, beta);
  }
  DEVICE float XHat(float x, int j) const { return (x - mean[j]) * rstd[j]; }
  DEVICE float Z(float x_hat, int j) const { return fmaf(x_hat, gamma[j], beta[j]); }

  float mean[kCount], rstd[kCount], gamma[kCount], beta[kCount];
};

bool IsAligned(const BatchNormAffine& affine) {
  return affine.channels % kPackedElements == 0 && IsAligned16(affine.mean) &&
         IsAligned16(affine.rstd) && IsAligned16(affine.gamma) && IsAligned16(affine.beta);
}

// Sums of a chunk of rows around its first row: sums of squares around zero would lose the variance
// of channels whose mean is large.
template <typename X>
struct AddSquares {
  const X* x;
  int64_t channels, chunk_rows;

  template <int kWidth>
  DEVICE void Run(int64_t row, int64_t column, float (&sums)[2][kWidth]) const {
    float v[kWidth], shift[kWidth];
    LoadFloats(x + row * channels + column, v);
    LoadFloats(x + row / chunk_rows * chunk_rows * channels + column, shift);
    UNROLL for (int j = 0; j < kWidth; ++j) {
      const float d = v[j] - shift[j];
      sums[0][j] += d;
      sums[1][j] = fmaf(d, d, sums[1][j]);
    }
  }
};

// Sums around zero, from those of the chunks: partials [chunks, 2, channels].
template <typename X>
KERNEL(kThreads)
AddUpSquares(const X* x, const float* partials, int64_t rows, int64_t channels, int64_t chunk_rows,
             double* sums) {
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= channels) return;
  double total = 0, total_squares = 0;
  for (int64_t begin = 0; begin < rows; begin += chunk_rows) {
    const float* chunk = partials + begin / chunk_rows * 2 * channels;
    const double sum = chunk[c], squares = chunk[channels + c];
    const double shift = LoadFloat(x + begin * channels + c);
    const double count = static_cast<double>(begin + chunk_rows < rows ? chunk_rows : rows - begin);
    total += sum + count * shift;
    total_squares += squares + shift * (2 * sum + count * shift);
  }
  sums[c] = total;
  sums[channels + c] = total_squares;
}

static KERNEL(kThreads) ComputeStatistics(BatchNormStatisticsArgs args) {
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= args.channels) return;
  if (args.sums == nullptr) {
    args.mean[c] = args.running_mean[c];
    args.rstd[c] = 1.0f / sqrtf(args.running_var[c] + args.eps);
    return;
  }
  const double count = static_cast<double>(args.count), mean = args.sums[c] / count;
  const double square = args.sums[args.channels + c] / count - mean * mean;
  const double variance = square > 0 ? square : 0;
  args.mean[c] = static_cast<float>(mean);
  args.rstd[c] = static_cast<float>(1 / sqrt(variance + args.eps));
  if (args.momentum == 0) return;
  const double unbiased = args.count > 1 ? variance * count / (count - 1) : variance;
  const double keep = 1 - args.momentum;
  args.running_mean[c] = static_cast<float>(keep * args.running_mean[c] + args.momentum * mean);
  args.running_var[c] = static_cast<float>(keep * args.running_var[c] + args.momentum * unbiased);
}

template <Activation kActivation, typename X, typename Y>
struct Normalize {
  BatchNormAffine affine;
  BatchNormGateArgs gate;
  const X* x;
  Y* y;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    const int64_t c = i % affine.channels;
    const Channels<kCount> of(affine, c);
    float v[kCount], factor[kCount];
    LoadFloats(x + i, v);
    UNROLL for (int j = 0; j < kCount; ++j) factor[j] = 1;
    if (gate.gate != nullptr) {
      LoadFloats(gate.gate + i / (gate.pixels * affine.channels) * affine.channels + c, factor);
    }
    UNROLL for (int j = 0; j < kCount; ++j) {
      v[j] = Activate<kActivation>(of.Z(of.XHat(v[j], j), j)) * factor[j];
    }
    StoreFloats(v, y + i);
  }
};

template <Activation kActivation, typename DY, typename X>
struct AddGradients {
  BatchNormAffine affine;
  const DY* dy;
  const X* x;

  template <int kWidth>
  DEVICE void Run(int64_t row, int64_t column, float (&sums)[2][kWidth]) const {
    const Channels<kWidth> of(affine, column);
    float d[kWidth], v[kWidth];
    LoadFloats(dy + row * affine.channels + column, d);
    LoadFloats(x + row * affine.channels + column, v);
    UNROLL for (int j = 0; j < kWidth; ++j) {
      const float x_hat = of.XHat(v[j], j);
      const float g = d[j] * ActivationDerivative<kActivation>(of.Z(x_hat, j));
      sums[0][j] += g;
      sums[1][j] = fmaf(g, x_hat, sums[1][j]);
    }
  }
};

template <Activation kActivation, typename DY, typename X>
struct GradInput {
  BatchNormAffine affine;
  BatchNormGateArgs gate;
  const DY* dy;
  const X* x;
  const float* sums;
  X* dx;
  float inverse_count;  // 0 without sums
  bool accumulate;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    const int64_t c = i % affine.channels;
    const Channels<kCount> of(affine, c);
    float d[kCount], v[kCount], result[kCount] = {}, sum_g[kCount] = {}, sum_g_x_hat[kCount] = {};
    LoadFloats(dy + i, d);
    LoadFloats(x + i, v);
    if (sums != nullptr) {
      LoadFloats(sums + c, sum_g);
      LoadFloats(sums + affine.channels + c, sum_g_x_hat);
    }
    if (gate.gate != nullptr) {
      const int64_t of_image = i / (gate.pixels * affine.channels) * affine.channels + c;
      float factor[kCount], dmeans[kCount];
      LoadFloats(gate.gate + of_image, factor);
      LoadFloats(gate.dmeans + of_image, dmeans);
      const float inverse_pixels = 1.0f / static_cast<float>(gate.pixels);
      UNROLL for (int j = 0; j < kCount; ++j) {
        d[j] = fmaf(d[j], factor[j], dmeans[j] * inverse_pixels);
      }
    }
    if (accumulate) LoadFloats(dx + i, result);
    UNROLL for (int j = 0; j < kCount; ++j) {
      const float x_hat = of.XHat(v[j], j);
      const float g = d[j] * ActivationDerivative<kActivation>(of.Z(x_hat, j));
      const float common = (sum_g[j] + x_hat * sum_g_x_hat[j]) * inverse_count;
      result[j] = fmaf(g - common, of.gamma[j] * of.rstd[j], result[j]);
    }
    StoreFloats(result, dx + i);
  }
};

// out [kSums, images, channels] = factor times the sums over an image's pixels of what fn.Run(i, c,
// sums) adds for element i, of channel c. A block works on one image and 32 channels, its warps on
// every eighth pixel.
template <int kSums, typename Fn>
KERNEL(kThreads)
SumImages(Fn fn, int64_t pixels, int64_t channels, float factor, float* out) {
  SHARED_ARRAY(float, shared, kSums* kThreads);
  const int64_t c = int64_t{blockIdx.y} * kWarpSize + Lane();
  float sums[kSums] = {};
  if (c < channels) {
    for (int64_t p = WarpIndex(); p < pixels; p += kWarps) {
      fn.Run((blockIdx.x * pixels + p) * channels + c, c, sums);
    }
  }
  UNROLL for (int s = 0; s < kSums; ++s) shared[s * kThreads + threadIdx.x] = sums[s];
  BLOCK_SYNC();
  if (WarpIndex() >= kSums || c >= channels) return;
  float total = 0;
  UNROLL for (int w = 0; w < kWarps; ++w) {
    total += shared[WarpIndex() * kThreads + w * kWarpSize + Lane()];
  }
  out[(int64_t{WarpIndex()} * gridDim.x + blockIdx.x) * channels + c] = total * factor;
}

template <Activation kActivation, typename X>
struct AddActivated {
  BatchNormAffine affine;
  const X* x;

  DEVICE void Run(int64_t i, int64_t c, float (&sums)[1]) const {
    const Channels<1> of(affine, c);
    sums[0] += Activate<kActivation>(of.Z(of.XHat(LoadFloat(x + i), 0), 0));
  }
};

template <Activation kActivation, typename DY, typename X>
struct AddGateSums {
  BatchNormAffine affine;
  const DY* dy;
  const X* x;

  DEVICE void Run(int64_t i, int64_t c, float (&sums)[kBatchNormGateSums]) const {
    const Channels<1> of(affine, c);
    const float d = LoadFloat(dy + i), x_hat = of.XHat(LoadFloat(x + i), 0), z = of.Z(x_hat, 0);
    const float slope = ActivationDerivative<kActivation>(z);
    sums[0] = fmaf(d, Activate<kActivation>(z), sums[0]);
    sums[1] = fmaf(d, slope, sums[1]);
    sums[2] += slope;
    sums[3] = fmaf(d, slope * x_hat, sums[3]);
    sums[4] = fmaf(slope, x_hat, sums[4]);
  }
};

static KERNEL(kThreads) CombineGateSums(BatchNormGateCombineArgs args) {
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= args.channels) return;
  const int64_t stride = args.images * args.channels;
  const float inverse_pixels = 1.0f / static_cast<float>(args.pixels);
  float sum = 0, sum_x_hat = 0;
  for (int64_t i = c; i < stride; i += args.channels) {
    const float* of = args.gate_sums + i;
    const float gate = args.gate[i], offset = args.dmeans[i] * inverse_pixels;
    sum += gate * of[stride] + offset * of[2 * stride];
    sum_x_hat += gate * of[3 * stride] + offset * of[4 * stride];
  }
  args.sums[c] = sum;
  args.sums[args.channels + c] = sum_x_hat;
}

// Partial sums [chunks, 2, channels] of fn over chunks of rows.
template <typename Fn>
void SumRows(const Fn& fn, int64_t rows, int64_t channels, bool aligned, float* partials) {
  if (rows == 0) return;
  const int64_t chunk_rows = SumChunkRows(rows);
  if (aligned) {
    LaunchPartialColumnSums<kPackedElements, 2>(fn, rows, channels, chunk_rows, partials);
  } else {
    LaunchPartialColumnSums<1, 2>(fn, rows, channels, chunk_rows, partials);
  }
}

void BatchNormSumsCuda(const BatchNormSumsArgs& args) {
  WithFloatType(args.x_dtype, [&](auto type) {
    using X = decltype(type);
    const X* x = static_cast<const X*>(args.x);
    const int64_t chunk_rows = SumChunkRows(args.rows);
    const Workspace<float> partials(CeilDiv(args.rows, chunk_rows) * 2 * args.channels);
    SumRows(AddSquares<X>{x, args.channels, chunk_rows}, args.rows, args.channels,
            args.channels % kPackedElements == 0 && IsAligned16(x), partials.data());
    Launch<AddUpSquares<X>>({.x = CeilDiv(args.channels, kThreads)}, {.x = kThreads}, 0,
                            CurrentStream(), x, partials.data(), args.rows, args.channels,
                            chunk_rows, args.sums);
  });
}

void BatchNormStatisticsCuda(const BatchNormStatisticsArgs& args) {
  Launch<ComputeStatistics>({.x = CeilDiv(args.channels, kThreads)}, {.x = kThreads}, 0,
                            CurrentStream(), args);
}

void BatchNormCuda(const BatchNormArgs& args) {
  const bool aligned = IsAligned(args.affine) && IsAligned16(args.x) && IsAligned16(args.y) &&
                       IsAligned16(args.gate.gate);
  WithBatchNormActivation(args.affine.activation, [&](auto activation) {
    WithFloatTypes(args.x_dtype, args.y_dtype, [&](auto x_type, auto y_type) {
      using X = decltype(x_type);
      using Y = decltype(y_type);
      LaunchElementwise(
          Normalize<decltype(activation)::value, X, Y>{
              args.affine, args.gate, static_cast<const X*>(args.x), static_cast<Y*>(args.y)},
          args.affine.rows * args.affine.channels, aligned);
    });
  });
}

void BatchNormGradSumsCuda(const BatchNormGradSumsArgs& args) {
  const int64_t rows = args.affine.rows, channels = args.affine.channels;
  const int64_t chunks = CeilDiv(rows, SumChunkRows(rows));
  const Workspace<float> partials(chunks * 2 * channels);
  const bool aligned = IsAligned(args.affine) && IsAligned16(args.dy) && IsAligned16(args.x);
  WithBatchNormActivation(args.affine.activation, [&](auto activation) {
    WithFloatTypes(args.dy_dtype, args.x_dtype, [&](auto dy_type, auto x_type) {
      using DY = decltype(dy_type);
      using X = decltype(x_type);
      SumRows(
          AddGradients<decltype(activation)::value, DY, X>{
              args.affine, static_cast<const DY*>(args.dy), static_cast<const X*>(args.x)},
          rows, channels, aligned, partials.data());
    });
  });
  LaunchAddUpPartials(partials.data(), chunks, 2 * channels, channels,
                      {.out = args.sums, .sums = 2, .sum_step = channels});
}

void BatchNormGradInputCuda(const BatchNormGradInputArgs& args) {
  const bool aligned = IsAligned(args.affine) && IsAligned16(args.dy) && IsAligned16(args.x) &&
                       IsAligned16(args.sums) && IsAligned16(args.dx) &&
                       IsAligned16(args.gate.gate) && IsAligned16(args.gate.dmeans);
  const float inverse_count = args.sums == nullptr ? 0.0f : 1.0f / static_cast<float>(args.count);
  WithBatchNormActivation(args.affine.activation, [&](auto activation) {
    WithFloatTypes(args.dy_dtype, args.x_dtype, [&](auto dy_type, auto x_type) {
      using DY = decltype(dy_type);
      using X = decltype(x_type);
      LaunchElementwise(
          GradInput<decltype(activation)::value, DY, X>{
              args.affine, args.gate, static_cast<const DY*>(args.dy),
              static_cast<const X*>(args.x), args.sums, static_cast<X*>(args.dx), inverse_count,
              args.accumulate},
          args.affine.rows * args.affine.channels, aligned);
    });
  });
}

template <int kSums, typename Fn>
void LaunchSumImages(const Fn& fn, const BatchNormAffine& affine, int64_t pixels, float factor,
                     float* out) {
  Launch<SumImages<kSums, Fn>>({affine.rows / pixels, CeilDiv(affine.channels, kWarpSize)},
                               {.x = kThreads}, 0, CurrentStream(), fn, pixels, affine.channels,
                               factor, out);
}

void BatchNormPoolCuda(const BatchNormPoolArgs& args) {
  WithBatchNormActivation(args.affine.activation, [&](auto activation) {
    WithFloatType(args.x_dtype, [&](auto type) {
      using X = decltype(type);
      LaunchSumImages<1>(
          AddActivated<decltype(activation)::value, X>{args.affine, static_cast<const X*>(args.x)},
          args.affine, args.pixels, 1.0f / static_cast<float>(args.pixels), args.pooled);
    });
  });
}

void BatchNormGateSumsCuda(const BatchNormGateSumsArgs& args) {
  WithBatchNormActivation(args.affine.activation, [&](auto activation) {
    WithFloatTypes(args.dy_dtype, args.x_dtype, [&](auto dy_type, auto x_type) {
      using DY = decltype(dy_type);
      using X = decltype(x_type);
      LaunchSumImages<kBatchNormGateSums>(
          AddGateSums<decltype(activation)::value, DY, X>{
              args.affine, static_cast<const DY*>(args.dy), static_cast<const X*>(args.x)},
          args.affine, args.pixels, 1.0f, args.sums);
    });
  });
}

void BatchNormGateCombineCuda(const BatchNormGateCombineArgs& args) {
  Launch<CombineGateSums>({.x = CeilDiv(args.channels, kThreads)}, {.x = kThreads}, 0,
                          CurrentStream(), args);
}

REGISTER_CUDA_KERNEL(batch_norm_sums, BatchNormSumsCuda);
REGISTER_CUDA_KERNEL(batch_norm_statistics, BatchNormStatisticsCuda);
REGISTER_CUDA_KERNEL(batch_norm, BatchNormCuda);
REGISTER_CUDA_KERNEL(batch_norm_grad_sums, BatchNormGradSumsCuda);
REGISTER_CUDA_KERNEL(batch_norm_grad_input, BatchNormGradInputCuda);
REGISTER_CUDA_KERNEL(batch_norm_pool, BatchNormPoolCuda);
REGISTER_CUDA_KERNEL(batch_norm_gate_sums, BatchNormGateSumsCuda);
REGISTER_CUDA_KERNEL(batch_norm_gate_combine, BatchNormGateCombineCuda);

}  // namespace
}  // namespace tessera
