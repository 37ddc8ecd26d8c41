#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/squared_norm/squared_norm_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "core/parallel.h"
#include "tensor/ops/squared_norm/squared_norm.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

double SumOfSquares(const float* x, int64_t n) {
  const FloatTag df;
  const hn::RepartitionToWide<FloatTag> dd;
  auto low_sum = hn::Zero(dd), high_sum = hn::Zero(dd);
  ForEachVector(df, n, [&](int64_t i, auto lanes) HWY_ATTR {
    const FloatVec v = LoadF32N(df, x + i, lanes);
    const auto low = hn::PromoteTo(dd, hn::LowerHalf(v));
    const auto high = hn::PromoteTo(dd, hn::UpperHalf(hn::Half<FloatTag>(), v));
    low_sum = hn::MulAdd(low, low, low_sum);
    high_sum = hn::MulAdd(high, high, high_sum);
  });
  return hn::GetLane(hn::SumOfLanes(dd, hn::Add(low_sum, high_sum)));
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(SumOfSquares);

constexpr int64_t kGrain = int64_t{1} << 15;

void SquaredNormCpu(const SquaredNormArgs& args) {
  const int64_t chunks = NumChunks(args.n, kGrain);
  const Tensor partials = Tensor::Empty({chunks}, DType::kF64);
  double* sums = partials.data<double>();
  ParallelFor(args.n, kGrain, [&](int64_t begin, int64_t end) {
    sums[begin / kGrain] = HWY_DYNAMIC_DISPATCH(SumOfSquares)(args.x + begin, end - begin);
  });
  *args.result = 0;
  for (int64_t k = 0; k < chunks; ++k) *args.result += sums[k];
}

REGISTER_KERNEL(squared_norm, Device::kCpu, SquaredNormCpu);

}  // namespace
}  // namespace tessera
#endif
