#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/mean_pool/mean_pool_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>

#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/mean_pool/mean_pool.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

void PoolImage(const MeanPoolArgs& args, int64_t image) {
  WithFloatType(args.x_dtype, [&](auto type) {
    const FloatTag df;
    const auto* x =
        static_cast<const decltype(type)*>(args.x) + image * args.pixels * args.channels;
    float* y = args.y + image * args.channels;
    std::fill_n(y, args.channels, 0.0f);
    for (int64_t p = 0; p < args.pixels; ++p) {
      const auto* pixel = x + p * args.channels;
      ForEachVector(df, args.channels, [=](int64_t c, auto lanes) HWY_ATTR {
        const FloatVec sum = hn::Add(LoadF32N(df, y + c, lanes), LoadF32N(df, pixel + c, lanes));
        StoreF32N(sum, df, y + c, lanes);
      });
    }
    const FloatVec inverse = hn::Set(df, 1.0f / static_cast<float>(args.pixels));
    ForEachVector(df, args.channels, [=](int64_t c, auto lanes) HWY_ATTR {
      StoreF32N(hn::Mul(LoadF32N(df, y + c, lanes), inverse), df, y + c, lanes);
    });
  });
}

void SpreadImage(const MeanPoolBackwardArgs& args, int64_t image) {
  WithFloatType(args.dx_dtype, [&](auto type) {
    const FloatTag df;
    const float* dy = args.dy + image * args.channels;
    auto* dx = static_cast<decltype(type)*>(args.dx) + image * args.pixels * args.channels;
    const FloatVec inverse = hn::Set(df, 1.0f / static_cast<float>(args.pixels));
    for (int64_t p = 0; p < args.pixels; ++p) {
      auto* pixel = dx + p * args.channels;
      ForEachVector(df, args.channels, [=, &args](int64_t c, auto lanes) HWY_ATTR {
        const FloatVec before = args.accumulate ? LoadF32N(df, pixel + c, lanes) : hn::Zero(df);
        StoreF32N(hn::MulAdd(LoadF32N(df, dy + c, lanes), inverse, before), df, pixel + c, lanes);
      });
    }
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(PoolImage);
HWY_EXPORT(SpreadImage);

void MeanPoolCpu(const MeanPoolArgs& args) {
  ParallelFor(args.batch, 1, [&](int64_t image, int64_t) {
    HWY_DYNAMIC_DISPATCH(PoolImage)(args, image);
  });
}

void MeanPoolBackwardCpu(const MeanPoolBackwardArgs& args) {
  ParallelFor(args.batch, 1, [&](int64_t image, int64_t) {
    HWY_DYNAMIC_DISPATCH(SpreadImage)(args, image);
  });
}

REGISTER_KERNEL(mean_pool, Device::kCpu, MeanPoolCpu);
REGISTER_KERNEL(mean_pool_backward, Device::kCpu, MeanPoolBackwardCpu);

}  // namespace
}  // namespace tessera
#endif
