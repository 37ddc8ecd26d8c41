#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/layer_norm/layer_norm_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/layer_norm/layer_norm.h"
#include "tensor/ops/partial_sums.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

template <typename X, typename Y>
void Normalize(const LayerNormArgs& args, int64_t begin, int64_t end) {
  const FloatTag df;
  const int64_t channels = args.channels;
  const float inverse_channels = 1.0f / static_cast<float>(channels);
  for (int64_t row = begin; row < end; ++row) {
    const X* HWY_RESTRICT x = static_cast<const X*>(args.x) + row * channels;
    Y* HWY_RESTRICT y = static_cast<Y*>(args.y) + row * channels;
    const FloatVec sum = SumOverVectors(
        df, channels, [=](int64_t c, auto lanes) HWY_ATTR { return LoadF32N(df, x + c, lanes); });
    const float mean = SumF32(df, sum) * inverse_channels;
    const FloatVec means = hn::Set(df, mean);
    const FloatVec squares = SumOverVectors(df, channels, [=](int64_t c, auto lanes) HWY_ATTR {
      const FloatVec d = KeepF32N(df, hn::Sub(LoadF32N(df, x + c, lanes), means), lanes);
      return hn::Mul(d, d);
    });
    const float rstd = 1.0f / std::sqrt(SumF32(df, squares) * inverse_channels + args.eps);
    const FloatVec rstds = hn::Set(df, rstd);
    ForEachVector(df, channels, [=, &args](int64_t c, auto lanes) HWY_ATTR {
      const FloatVec x_hat = hn::Mul(hn::Sub(LoadF32N(df, x + c, lanes), means), rstds);
      const FloatVec gamma = LoadF32N(df, args.gamma + c, lanes);
      const FloatVec beta = LoadF32N(df, args.beta + c, lanes);
      StoreF32N(hn::MulAdd(x_hat, gamma, beta), df, y + c, lanes);
    });
    args.mean[row] = mean;
    args.rstd[row] = rstd;
  }
}

void NormalizeRows(const LayerNormArgs& args, int64_t begin, int64_t end) {
  WithFloatTypes(args.x_dtype, args.y_dtype,
                 [&](auto x, auto y) { Normalize<decltype(x), decltype(y)>(args, begin, end); });
}

// Backward goes through kBlock rows at once, so that their contributions to dgamma and dbeta meet
// in registers.
constexpr int64_t kBlock = 4;

// With g = dy * gamma and x_hat = (x - mean) * rstd, dx = rstd * (g - mean(g) - x_hat * mean(g *
// x_hat)).
template <int64_t kRows, typename DY, typename X>
void BackwardBlock(const LayerNormBackwardArgs& args, int64_t row, float* HWY_RESTRICT dgamma,
                   float* HWY_RESTRICT dbeta) {
  const FloatTag df;
  const int64_t channels = args.channels;
  const DY* HWY_RESTRICT dy = static_cast<const DY*>(args.dy) + row * channels;
  const X* HWY_RESTRICT x = static_cast<const X*>(args.x) + row * channels;
  X* HWY_RESTRICT dx = static_cast<X*>(args.dx) + row * channels;
  const float* mean = args.mean + row;
  const float* rstd = args.rstd + row;
  const float inverse_channels = 1.0f / static_cast<float>(channels);
  float mean_g[kRows];
  float mean_g_x_hat[kRows];
  for (int64_t r = 0; r < kRows; ++r) {
    const FloatVec means = hn::Set(df, mean[r]);
    FloatVec sum_g = hn::Zero(df);
    FloatVec sum_g_x = hn::Zero(df);
    ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
      const FloatVec g =
          hn::Mul(LoadF32N(df, dy + r * channels + c, lanes), LoadF32N(df, args.gamma + c, lanes));
      sum_g = hn::Add(sum_g, g);
      sum_g_x = hn::MulAdd(g, hn::Sub(LoadF32N(df, x + r * channels + c, lanes), means), sum_g_x);
    });
    mean_g[r] = SumF32(df, sum_g) * inverse_channels;
    mean_g_x_hat[r] = SumF32(df, sum_g_x) * rstd[r] * inverse_channels;
  }
  ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
    const FloatVec gamma = LoadF32N(df, args.gamma + c, lanes);
    FloatVec sum_dgamma = LoadF32N(df, dgamma + c, lanes);
    FloatVec sum_dbeta = LoadF32N(df, dbeta + c, lanes);
    HWY_UNROLL(4)
    for (int64_t r = 0; r < kRows; ++r) {
      const int64_t i = r * channels + c;
      const FloatVec dy_r = LoadF32N(df, dy + i, lanes);
      const FloatVec rstds = hn::Set(df, rstd[r]);
      const FloatVec x_hat =
          hn::Mul(hn::Sub(LoadF32N(df, x + i, lanes), hn::Set(df, mean[r])), rstds);
      sum_dgamma = hn::MulAdd(dy_r, x_hat, sum_dgamma);
      sum_dbeta = hn::Add(sum_dbeta, dy_r);
      if (args.dx == nullptr) continue;
      const FloatVec centered = hn::MulSub(dy_r, gamma, hn::Set(df, mean_g[r]));
      const FloatVec d = hn::NegMulAdd(x_hat, hn::Set(df, mean_g_x_hat[r]), centered);
      const FloatVec before = args.accumulate_dx ? LoadF32N(df, dx + i, lanes) : hn::Zero(df);
      StoreF32N(hn::MulAdd(d, rstds, before), df, dx + i, lanes);
    }
    StoreF32N(sum_dgamma, df, dgamma + c, lanes);
    StoreF32N(sum_dbeta, df, dbeta + c, lanes);
  });
}

void BackwardRows(const LayerNormBackwardArgs& args, int64_t begin, int64_t end, float* dgamma,
                  float* dbeta) {
  WithFloatTypes(args.dy_dtype, args.x_dtype, [&](auto dy, auto x) {
    using DY = decltype(dy);
    using X = decltype(x);
    int64_t row = begin;
    for (; row + kBlock <= end; row += kBlock) {
      BackwardBlock<kBlock, DY, X>(args, row, dgamma, dbeta);
    }
    for (; row < end; ++row) BackwardBlock<1, DY, X>(args, row, dgamma, dbeta);
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(NormalizeRows);
HWY_EXPORT(BackwardRows);

void LayerNormCpu(const LayerNormArgs& args) {
  ParallelFor(args.rows, RowsPerChunk(args.rows, args.channels), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(NormalizeRows)(args, begin, end);
  });
}

void LayerNormBackwardCpu(const LayerNormBackwardArgs& args) {
  const int64_t chunk_rows = RowsPerChunk(args.rows, args.channels);
  const PartialSums sums(NumChunks(args.rows, chunk_rows), 2 * args.channels);
  ParallelFor(args.rows, chunk_rows, [&](int64_t begin, int64_t end) {
    float* dgamma = sums.chunk(begin / chunk_rows);
    HWY_DYNAMIC_DISPATCH(BackwardRows)(args, begin, end, dgamma, dgamma + args.channels);
  });
  if (args.dgamma != nullptr) sums.AddUp(0, args.channels, args.dgamma, args.accumulate_dgamma);
  if (args.dbeta != nullptr) {
    sums.AddUp(args.channels, args.channels, args.dbeta, args.accumulate_dbeta);
  }
}

REGISTER_KERNEL(layer_norm, Device::kCpu, LayerNormCpu);
REGISTER_KERNEL(layer_norm_backward, Device::kCpu, LayerNormBackwardCpu);

}  // namespace
}  // namespace tessera
#endif
