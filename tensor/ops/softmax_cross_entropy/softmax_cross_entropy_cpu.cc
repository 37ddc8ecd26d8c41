#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/softmax_cross_entropy/softmax_cross_entropy_cpu.cc"
#include <cmath>

#include "core/parallel.h"
#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy.h"
#include "tensor/simd_targets.h"
// After simd_targets.h, which chooses the instruction sets.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

float MaxOf(const float* x, int64_t n) {
  float max = x[0];
  for (int64_t i = 1; i < n; ++i) max = std::max(max, x[i]);
  return max;
}

// One row: its loss, and when `gradient` is not null (softmax * sum(t) - t) * scale.
float RowLoss(const float* x, const float* t, int64_t n, float* gradient, float scale) {
  const FloatTag df;
  const float max = MaxOf(x, n);
  const FloatVec max_v = hn::Set(df, max);
  FloatVec exp_sum = hn::Zero(df), target_sum = hn::Zero(df), dot = hn::Zero(df);
  ForEachVector(df, n, [&](int64_t i, auto count) HWY_ATTR {
    const FloatVec shifted = hn::Sub(LoadF32N(df, x + i, count), max_v);
    const FloatVec target = LoadF32N(df, t + i, count);
    exp_sum = hn::Add(exp_sum, KeepF32N(df, Exp(df, shifted), count));
    target_sum = hn::Add(target_sum, target);
    dot = hn::MulAdd(target, KeepF32N(df, shifted, count), dot);
  });
  const float total = SumF32(df, exp_sum), targets = SumF32(df, target_sum);
  if (gradient != nullptr) {
    const FloatVec factor = hn::Set(df, targets / total * scale);
    ForEachVector(df, n, [&](int64_t i, auto count) HWY_ATTR {
      const FloatVec e = Exp(df, hn::Sub(LoadF32N(df, x + i, count), max_v));
      const FloatVec target = LoadF32N(df, t + i, count);
      const FloatVec g = hn::NegMulAdd(target, hn::Set(df, scale), hn::Mul(e, factor));
      StoreF32N(g, df, gradient + i, count);
    });
  }
  return targets * std::log(total) - SumF32(df, dot);
}

void SoftmaxCrossEntropyVector(const SoftmaxCrossEntropyArgs& args) {
  const float scale = 1.0f / static_cast<float>(args.batch);
  const int64_t n = args.classes;
  ParallelFor(args.batch, 8, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      float* gradient = args.dlogits == nullptr ? nullptr : args.dlogits + b * n;
      args.losses[b] = RowLoss(args.logits + b * n, args.targets + b * n, n, gradient, scale);
    }
  });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(SoftmaxCrossEntropyVector);
void SoftmaxCrossEntropyCpu(const SoftmaxCrossEntropyArgs& args) {
  HWY_DYNAMIC_DISPATCH(SoftmaxCrossEntropyVector)(args);
  double sum = 0;
  for (int64_t b = 0; b < args.batch; ++b) sum += args.losses[b];
  *args.loss = static_cast<float>(sum / static_cast<double>(args.batch));
}
REGISTER_KERNEL(softmax_cross_entropy, Device::kCpu, SoftmaxCrossEntropyCpu);

}  // namespace
}  // namespace tessera
#endif
