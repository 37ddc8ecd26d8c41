#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/batch_norm/batch_norm_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "tensor/ops/batch_norm/batch_norm-inl.h"
#include "tensor/ops/batch_norm/batch_norm.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/partial_sums.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

// sums[0, channels) += x - shift and sums[channels, 2 channels) += (x - shift)^2.
template <typename X>
void AddSquares(const BatchNormSumsArgs& args, int64_t begin, int64_t end, const float* shift,
                float* sums) {
  const FloatTag df;
  const int64_t channels = args.channels;
  ForEachBlock(begin, end, [&](int64_t row, auto rows) HWY_ATTR {
    const X* HWY_RESTRICT x = static_cast<const X*>(args.x) + row * channels;
    ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
      const FloatVec shifts = LoadF32N(df, shift + c, lanes);
      FloatVec sum = hn::Zero(df), squares = hn::Zero(df);
      HWY_UNROLL(8)
      for (int64_t r = 0; r < decltype(rows)::value; ++r) {
        const FloatVec d = hn::Sub(LoadF32N(df, x + r * channels + c, lanes), shifts);
        sum = hn::Add(sum, d);
        squares = hn::MulAdd(d, d, squares);
      }
      StoreF32N(hn::Add(sum, LoadF32N(df, sums + c, lanes)), df, sums + c, lanes);
      float* to = sums + channels + c;
      StoreF32N(hn::Add(squares, LoadF32N(df, to, lanes)), df, to, lanes);
    });
  });
}

// Sums of a chunk of rows around its first row, which is stored to `shift`: sums of squares around
// zero would lose the variance of channels whose mean is large.
void SumChunk(const BatchNormSumsArgs& args, int64_t begin, int64_t end, float* shift,
              float* sums) {
  const FloatTag df;
  WithFloatType(args.x_dtype, [&](auto type) {
    using X = decltype(type);
    const X* first = static_cast<const X*>(args.x) + begin * args.channels;
    ForEachVector(df, args.channels, [=](int64_t c, auto lanes) HWY_ATTR {
      StoreF32N(LoadF32N(df, first + c, lanes), df, shift + c, lanes);
    });
    AddSquares<X>(args, begin, end, shift, sums);
  });
}

template <Activation kActivation, typename X, typename Y>
void Normalize(const BatchNormArgs& args, int64_t begin, int64_t end) {
  const FloatTag df;
  const int64_t channels = args.affine.channels;
  ForEachBlockOfImages(
      args.gate.pixels, begin, end, [&](int64_t image, int64_t row, auto rows) HWY_ATTR {
        const X* HWY_RESTRICT x = static_cast<const X*>(args.x) + row * channels;
        Y* HWY_RESTRICT y = static_cast<Y*>(args.y) + row * channels;
        const float* gate = args.gate.gate == nullptr ? nullptr : args.gate.gate + image * channels;
        ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
          const Channels of(df, args.affine, c, lanes);
          const FloatVec factor =
              gate == nullptr ? hn::Set(df, 1.0f) : LoadF32N(df, gate + c, lanes);
          for (int64_t r = 0; r < decltype(rows)::value; ++r) {
            const int64_t i = r * channels + c;
            const FloatVec z = of.Z(of.XHat(LoadF32N(df, x + i, lanes)));
            StoreF32N(hn::Mul(Activate<kActivation>(df, z), factor), df, y + i, lanes);
          }
        });
      });
}

void NormalizeRows(const BatchNormArgs& args, int64_t begin, int64_t end) {
  WithBatchNormActivation(args.affine.activation, [&](auto activation) {
    WithFloatTypes(args.x_dtype, args.y_dtype, [&](auto x, auto y) {
      Normalize<decltype(activation)::value, decltype(x), decltype(y)>(args, begin, end);
    });
  });
}

// g = dy activation'(z).
template <Activation kActivation>
HWY_INLINE FloatVec GradOfZ(FloatTag df, const Channels& of, FloatVec dy, FloatVec x_hat) {
  if constexpr (kActivation == Activation::kNone) return dy;
  return hn::Mul(dy, ActivationDerivative<kActivation>(df, of.Z(x_hat)));
}

template <Activation kActivation, typename DY, typename X>
void SumGradients(const BatchNormGradSumsArgs& args, int64_t begin, int64_t end, float* sums) {
  const FloatTag df;
  const int64_t channels = args.affine.channels;
  ForEachBlock(begin, end, [&](int64_t row, auto rows) HWY_ATTR {
    const X* HWY_RESTRICT x = static_cast<const X*>(args.x) + row * channels;
    const DY* HWY_RESTRICT dy = static_cast<const DY*>(args.dy) + row * channels;
    ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
      const Channels of(df, args.affine, c, lanes);
      FloatVec sum = hn::Zero(df), sum_x_hat = hn::Zero(df);
      for (int64_t r = 0; r < decltype(rows)::value; ++r) {
        const int64_t i = r * channels + c;
        const FloatVec x_hat = of.XHat(LoadF32N(df, x + i, lanes));
        const FloatVec g = GradOfZ<kActivation>(df, of, LoadF32N(df, dy + i, lanes), x_hat);
        sum = hn::Add(sum, g);
        sum_x_hat = hn::MulAdd(g, x_hat, sum_x_hat);
      }
      StoreF32N(hn::Add(sum, LoadF32N(df, sums + c, lanes)), df, sums + c, lanes);
      float* to = sums + channels + c;
      StoreF32N(hn::Add(sum_x_hat, LoadF32N(df, to, lanes)), df, to, lanes);
    });
  });
}

void SumGradientRows(const BatchNormGradSumsArgs& args, int64_t begin, int64_t end, float* sums) {
  WithBatchNormActivation(args.affine.activation, [&](auto activation) {
    WithFloatTypes(args.dy_dtype, args.x_dtype, [&](auto dy, auto x) {
      SumGradients<decltype(activation)::value, decltype(dy), decltype(x)>(args, begin, end, sums);
    });
  });
}

template <Activation kActivation, typename DY, typename X>
void GradInput(const BatchNormGradInputArgs& args, int64_t begin, int64_t end) {
  const FloatTag df;
  const int64_t channels = args.affine.channels;
  const FloatVec inverse_count =
      hn::Set(df, args.sums == nullptr ? 0.0f : 1.0f / static_cast<float>(args.count));
  const FloatVec inverse_pixels = hn::Set(df, 1.0f / static_cast<float>(args.gate.pixels));
  ForEachBlockOfImages(
      args.gate.pixels, begin, end, [&](int64_t image, int64_t row, auto rows) HWY_ATTR {
        const X* HWY_RESTRICT x = static_cast<const X*>(args.x) + row * channels;
        const DY* HWY_RESTRICT dy = static_cast<const DY*>(args.dy) + row * channels;
        X* HWY_RESTRICT dx = static_cast<X*>(args.dx) + row * channels;
        const float* gate = args.gate.gate == nullptr ? nullptr : args.gate.gate + image * channels;
        const float* dmeans = args.gate.dmeans + image * channels;
        ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
          const Channels of(df, args.affine, c, lanes);
          FloatVec mean_g = hn::Zero(df), mean_g_x_hat = hn::Zero(df);
          if (args.sums != nullptr) {
            mean_g = hn::Mul(LoadF32N(df, args.sums + c, lanes), inverse_count);
            mean_g_x_hat = hn::Mul(LoadF32N(df, args.sums + channels + c, lanes), inverse_count);
          }
          const FloatVec gates =
              gate == nullptr ? hn::Set(df, 1.0f) : LoadF32N(df, gate + c, lanes);
          const FloatVec offsets = gate == nullptr
                                       ? hn::Zero(df)
                                       : hn::Mul(LoadF32N(df, dmeans + c, lanes), inverse_pixels);
          const FloatVec factor = hn::Mul(of.gamma, of.rstd);
          for (int64_t r = 0; r < decltype(rows)::value; ++r) {
            const int64_t i = r * channels + c;
            const FloatVec x_hat = of.XHat(LoadF32N(df, x + i, lanes));
            const FloatVec da = hn::MulAdd(LoadF32N(df, dy + i, lanes), gates, offsets);
            const FloatVec g = GradOfZ<kActivation>(df, of, da, x_hat);
            const FloatVec d = hn::NegMulAdd(x_hat, mean_g_x_hat, hn::Sub(g, mean_g));
            const FloatVec before = args.accumulate ? LoadF32N(df, dx + i, lanes) : hn::Zero(df);
            StoreF32N(hn::MulAdd(d, factor, before), df, dx + i, lanes);
          }
        });
      });
}

void GradInputRows(const BatchNormGradInputArgs& args, int64_t begin, int64_t end) {
  WithBatchNormActivation(args.affine.activation, [&](auto activation) {
    WithFloatTypes(args.dy_dtype, args.x_dtype, [&](auto dy, auto x) {
      GradInput<decltype(activation)::value, decltype(dy), decltype(x)>(args, begin, end);
    });
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(SumChunk);
HWY_EXPORT(NormalizeRows);
HWY_EXPORT(SumGradientRows);
HWY_EXPORT(GradInputRows);

void BatchNormSumsCpu(const BatchNormSumsArgs& args) {
  const int64_t channels = args.channels;
  const int64_t chunk_rows = RowsPerChunk(args.rows, channels);
  const int64_t chunks = NumChunks(args.rows, chunk_rows);
  // Of each chunk: sums, sums of squares, and what both are around.
  const PartialSums partials(chunks, 3 * channels);
  ParallelFor(args.rows, chunk_rows, [&](int64_t begin, int64_t end) {
    float* sums = partials.chunk(begin / chunk_rows);
    HWY_DYNAMIC_DISPATCH(SumChunk)(args, begin, end, sums + 2 * channels, sums);
  });
  std::fill_n(args.sums, 2 * channels, 0.0);
  for (int64_t k = 0; k < chunks; ++k) {
    const float* chunk = partials.chunk(k);
    const auto rows = static_cast<double>(std::min(chunk_rows, args.rows - k * chunk_rows));
    for (int64_t c = 0; c < channels; ++c) {
      const double sum = chunk[c], squares = chunk[channels + c], shift = chunk[2 * channels + c];
      args.sums[c] += sum + rows * shift;
      args.sums[channels + c] += squares + shift * (2 * sum + rows * shift);
    }
  }
}

void BatchNormStatisticsCpu(const BatchNormStatisticsArgs& args) {
  const auto count = static_cast<double>(args.count);
  for (int64_t c = 0; c < args.channels; ++c) {
    if (args.sums == nullptr) {
      args.mean[c] = args.running_mean[c];
      args.rstd[c] = 1.0f / std::sqrt(args.running_var[c] + args.eps);
      continue;
    }
    const double mean = args.sums[c] / count;
    const double variance = std::max(args.sums[args.channels + c] / count - mean * mean, 0.0);
    args.mean[c] = static_cast<float>(mean);
    args.rstd[c] = static_cast<float>(1.0 / std::sqrt(variance + args.eps));
    if (args.momentum == 0) continue;
    const double unbiased = variance * count / std::max(count - 1, 1.0);
    const auto move = [&](float& running, double batch) {
      running = static_cast<float>((1 - args.momentum) * running + args.momentum * batch);
    };
    move(args.running_mean[c], mean);
    move(args.running_var[c], unbiased);
  }
}

void BatchNormCpu(const BatchNormArgs& args) {
  const int64_t rows = args.affine.rows, channels = args.affine.channels;
  ParallelFor(rows, RowsPerChunk(rows, channels), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormalizeRows)(args, begin, end);
  });
}

void BatchNormGradSumsCpu(const BatchNormGradSumsArgs& args) {
  const int64_t rows = args.affine.rows, channels = args.affine.channels;
  const int64_t chunk_rows = RowsPerChunk(rows, channels);
  const PartialSums partials(NumChunks(rows, chunk_rows), 2 * channels);
  ParallelFor(rows, chunk_rows, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SumGradientRows)(args, begin, end, partials.chunk(begin / chunk_rows));
  });
  partials.AddUp(0, 2 * channels, args.sums, /*accumulate=*/false);
}

void BatchNormGradInputCpu(const BatchNormGradInputArgs& args) {
  const int64_t rows = args.affine.rows, channels = args.affine.channels;
  ParallelFor(rows, RowsPerChunk(rows, channels), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GradInputRows)(args, begin, end);
  });
}

REGISTER_KERNEL(batch_norm_sums, Device::kCpu, BatchNormSumsCpu);
REGISTER_KERNEL(batch_norm_statistics, Device::kCpu, BatchNormStatisticsCpu);
REGISTER_KERNEL(batch_norm, Device::kCpu, BatchNormCpu);
REGISTER_KERNEL(batch_norm_grad_sums, Device::kCpu, BatchNormGradSumsCpu);
REGISTER_KERNEL(batch_norm_grad_input, Device::kCpu, BatchNormGradInputCpu);

}  // namespace
}  // namespace tessera
#endif
