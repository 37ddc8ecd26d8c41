#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/scale_columns/scale_columns_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>

#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/scale_columns/scale_columns.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

void ScaleRows(const ScaleColumnsArgs& args, int64_t begin, int64_t end) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    const FloatTag df;
    for (int64_t row = begin; row < end; ++row) {
      const T* x = static_cast<const T*>(args.x) + row * args.columns;
      T* y = static_cast<T*>(args.y) + row * args.columns;
      ForEachVector(df, args.columns, [&](int64_t c, auto lanes) HWY_ATTR {
        StoreF32N(hn::Mul(LoadF32N(df, x + c, lanes), LoadF32N(df, args.scale + c, lanes)), df,
                  y + c, lanes);
      });
    }
  });
}

// Also adds dy x of the rows to `sums`.
void ScaleRowsBackward(const ScaleColumnsBackwardArgs& args, int64_t begin, int64_t end,
                       float* sums) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    const FloatTag df;
    for (int64_t row = begin; row < end; ++row) {
      const T* dy = static_cast<const T*>(args.dy) + row * args.columns;
      const T* x = static_cast<const T*>(args.x) + row * args.columns;
      T* dx = static_cast<T*>(args.dx) + row * args.columns;
      ForEachVector(df, args.columns, [&](int64_t c, auto lanes) HWY_ATTR {
        const FloatVec d = LoadF32N(df, dy + c, lanes);
        const FloatVec sum = LoadF32N(df, sums + c, lanes);
        StoreF32N(hn::MulAdd(d, LoadF32N(df, x + c, lanes), sum), df, sums + c, lanes);
        StoreF32N(hn::Mul(d, LoadF32N(df, args.scale + c, lanes)), df, dx + c, lanes);
      });
    }
  });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(ScaleRows);
HWY_EXPORT(ScaleRowsBackward);

void ScaleColumnsCpu(const ScaleColumnsArgs& args) {
  constexpr int64_t kGrain = int64_t{1} << 14;  // elements
  ParallelFor(args.rows, kGrain / args.columns + 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ScaleRows)(args, begin, end);
  });
}

void ScaleColumnsBackwardCpu(const ScaleColumnsBackwardArgs& args) {
  ParallelFor(args.rows, kScaleColumnsGrain, [&](int64_t begin, int64_t end) {
    float* partial = args.partials + begin / kScaleColumnsGrain * args.columns;
    std::fill_n(partial, args.columns, 0.0f);
    HWY_DYNAMIC_DISPATCH(ScaleRowsBackward)(args, begin, end, partial);
  });
  if (!args.accumulate) std::fill_n(args.dscale, args.columns, 0.0f);
  const float* partial = args.partials;
  for (int64_t k = 0; k < NumChunks(args.rows, kScaleColumnsGrain); ++k) {
    for (int64_t c = 0; c < args.columns; ++c) args.dscale[c] += *partial++;
  }
}

REGISTER_KERNEL(scale_columns, Device::kCpu, ScaleColumnsCpu);
REGISTER_KERNEL(scale_columns_backward, Device::kCpu, ScaleColumnsBackwardCpu);

}  // namespace
}  // namespace tessera
#endif
