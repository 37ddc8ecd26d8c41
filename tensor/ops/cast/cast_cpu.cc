#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/cast/cast_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "core/parallel.h"
#include "tensor/ops/cast/cast.h"
#include "tensor/ops/float_types.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

template <typename X, typename Y>
void Convert(const X* x, Y* y, int64_t n) {
  const FloatTag df;
  ForEachVector(df, n, [=](int64_t i, auto lanes) HWY_ATTR {
    StoreF32N(LoadF32N(df, x + i, lanes), df, y + i, lanes);
  });
}

void CastChunk(const CastArgs& args, int64_t begin, int64_t end) {
  WithFloatTypes(args.x_dtype, args.y_dtype, [&](auto x, auto y) {
    Convert(static_cast<const decltype(x)*>(args.x) + begin,
            static_cast<decltype(y)*>(args.y) + begin, end - begin);
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(CastChunk);

constexpr int64_t kGrain = int64_t{1} << 15;

void CastCpu(const CastArgs& args) {
  ParallelFor(args.n, kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(CastChunk)(args, begin, end);
  });
}

REGISTER_KERNEL(cast, Device::kCpu, CastCpu);

}  // namespace
}  // namespace tessera
#endif
