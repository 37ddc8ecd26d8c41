#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/add/add_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "core/parallel.h"
#include "tensor/ops/add/add.h"
#include "tensor/ops/float_types.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

template <typename Y, typename X>
void Add(Y* y, const X* x, int64_t n) {
  const FloatTag df;
  ForEachVector(df, n, [=](int64_t i, auto lanes) HWY_ATTR {
    StoreF32N(hn::Add(LoadF32N(df, y + i, lanes), LoadF32N(df, x + i, lanes)), df, y + i, lanes);
  });
}

void AddChunk(const AddInPlaceArgs& args, int64_t begin, int64_t end) {
  WithFloatTypes(args.y_dtype, args.x_dtype, [&](auto y, auto x) {
    Add(static_cast<decltype(y)*>(args.y) + begin, static_cast<const decltype(x)*>(args.x) + begin,
        end - begin);
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(AddChunk);

constexpr int64_t kGrain = int64_t{1} << 15;

void AddInPlaceCpu(const AddInPlaceArgs& args) {
  ParallelFor(args.n, kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(AddChunk)(args, begin, end);
  });
}

REGISTER_KERNEL(add_in_place, Device::kCpu, AddInPlaceCpu);

}  // namespace
}  // namespace tessera
#endif
