#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/softmax/softmax_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <type_traits>

#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/softmax/softmax.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

template <typename T>
void SoftmaxRow(const T* x, float* y, int64_t n) {
  const FloatTag df;
  // The first element in every lane past the end changes no maximum.
  FloatVec max = hn::Set(df, static_cast<float>(x[0]));
  const FloatVec first = max;
  ForEachVector(df, n, [&](int64_t i, auto lanes) HWY_ATTR {
    const FloatVec v = LoadF32N(df, x + i, lanes);
    if constexpr (std::is_same_v<decltype(lanes), WholeVector>) {
      max = hn::Max(max, v);
    } else {
      max = hn::Max(max, hn::IfThenElse(hn::FirstN(df, static_cast<size_t>(lanes)), v, first));
    }
  });
  max = hn::Set(df, MaxF32(df, max));
  FloatVec sum = hn::Zero(df);
  ForEachVector(df, n, [&](int64_t i, auto lanes) HWY_ATTR {
    const FloatVec e = Exp(df, hn::Sub(LoadF32N(df, x + i, lanes), max));
    sum = hn::Add(sum, KeepF32N(df, e, lanes));
    StoreF32N(e, df, y + i, lanes);
  });
  const FloatVec inverse = hn::Set(df, 1.0f / SumF32(df, sum));
  ForEachVector(df, n, [&](int64_t i, auto lanes) HWY_ATTR {
    StoreF32N(hn::Mul(LoadF32N(df, y + i, lanes), inverse), df, y + i, lanes);
  });
}

void SoftmaxRows(const SoftmaxArgs& args, int64_t begin, int64_t end) {
  WithFloatType(args.x_dtype, [&](auto type) {
    const auto* x = static_cast<const decltype(type)*>(args.x);
    for (int64_t row = begin; row < end; ++row) {
      SoftmaxRow(x + row * args.columns, args.y + row * args.columns, args.columns);
    }
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(SoftmaxRows);

void SoftmaxCpu(const SoftmaxArgs& args) {
  ParallelFor(args.rows, 16, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(SoftmaxRows)(args, begin, end);
  });
}

REGISTER_KERNEL(softmax, Device::kCpu, SoftmaxCpu);

}  // namespace
}  // namespace tessera
#endif
