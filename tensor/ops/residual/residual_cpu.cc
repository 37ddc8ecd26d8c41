#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/residual/residual_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/residual/residual.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

// Elements [begin, end) of one sample, all multiplied by `scale`.
void AddScaled(const AddResidualArgs& args, int64_t begin, int64_t end, float scale) {
  WithFloatType(args.r_dtype, [&](auto type) {
    const FloatTag df;
    const float* x = args.x + begin;
    const auto* r = static_cast<const decltype(type)*>(args.r) + begin;
    float* y = args.y + begin;
    const FloatVec scales = hn::Set(df, scale);
    ForEachVector(df, end - begin, [=](int64_t i, auto lanes) HWY_ATTR {
      const FloatVec sum =
          hn::MulAdd(LoadF32N(df, r + i, lanes), scales, LoadF32N(df, x + i, lanes));
      StoreF32N(sum, df, y + i, lanes);
    });
  });
}

void Scale(const ScaleSamplesArgs& args, int64_t begin, int64_t end, float scale) {
  WithFloatType(args.y_dtype, [&](auto type) {
    const FloatTag df;
    const float* x = args.x + begin;
    auto* y = static_cast<decltype(type)*>(args.y) + begin;
    const FloatVec scales = hn::Set(df, scale);
    ForEachVector(df, end - begin, [=](int64_t i, auto lanes) HWY_ATTR {
      StoreF32N(hn::Mul(LoadF32N(df, x + i, lanes), scales), df, y + i, lanes);
    });
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(AddScaled);
HWY_EXPORT(Scale);

// Calls fn(begin, end, sample) in parallel for pieces of the samples; positions count over all of
// them.
template <typename Fn>
void ForEachPiece(int64_t batch, int64_t n, const Fn& fn) {
  constexpr int64_t kGrain = int64_t{1} << 15;
  ParallelFor(batch * n, kGrain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t sample = begin / n;
      const int64_t piece_end = std::min(end, (sample + 1) * n);
      fn(begin, piece_end, sample);
      begin = piece_end;
    }
  });
}

void AddResidualCpu(const AddResidualArgs& args) {
  ForEachPiece(args.batch, args.n, [&](int64_t begin, int64_t end, int64_t sample) {
    const float scale = args.scale == nullptr ? 1.0f : args.scale[sample];
    HWY_DYNAMIC_DISPATCH(AddScaled)(args, begin, end, scale);
  });
}

void ScaleSamplesCpu(const ScaleSamplesArgs& args) {
  ForEachPiece(args.batch, args.n, [&](int64_t begin, int64_t end, int64_t sample) {
    HWY_DYNAMIC_DISPATCH(Scale)(args, begin, end, args.scale[sample]);
  });
}

REGISTER_KERNEL(add_residual, Device::kCpu, AddResidualCpu);
REGISTER_KERNEL(scale_samples, Device::kCpu, ScaleSamplesCpu);

}  // namespace
}  // namespace tessera
#endif
