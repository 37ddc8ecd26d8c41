#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/optimizer/optimizer_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "tensor/ops/optimizer/optimizer.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

// Stores a vector of new values with their copies.
template <typename L>
HWY_INLINE void StoreValue(const OptimizerArgs& args, FloatVec value, int64_t i, L lanes) {
  const FloatTag df;
  StoreF32N(value, df, args.value + i, lanes);
  if (args.bf16 != nullptr) StoreF32N(value, df, args.bf16 + i, lanes);
  if (args.ema != nullptr) {
    const FloatVec ema = LoadF32N(df, args.ema + i, lanes);
    // value + decay (ema - value)
    const FloatVec next = hn::MulAdd(hn::Set(df, args.ema_decay), hn::Sub(ema, value), value);
    StoreF32N(next, df, args.ema + i, lanes);
  }
}

void AdamWRange(const AdamWArgs& args, const ParameterRange& range) {
  const FloatTag df;
  const float lr = args.lr * range.lr_scale;
  const FloatVec keep = hn::Set(df, 1.0f - lr * range.weight_decay);
  const FloatVec step_size = hn::Set(df, lr / args.bias_correction1);
  const FloatVec v_scale = hn::Set(df, 1.0f / std::sqrt(args.bias_correction2));
  const FloatVec beta1 = hn::Set(df, args.beta1), beta2 = hn::Set(df, args.beta2);
  const FloatVec one_minus_beta2 = hn::Set(df, 1.0f - args.beta2);
  const FloatVec eps = hn::Set(df, args.eps), grad_scale = hn::Set(df, args.grad_scale);
  ForEachVector(df, range.end - range.begin, [&](int64_t k, auto lanes) HWY_ATTR {
    const int64_t i = range.begin + k;
    const FloatVec g = hn::Mul(LoadF32N(df, args.grad + i, lanes), grad_scale);
    // g + beta1 (m - g)
    const FloatVec m = hn::MulAdd(beta1, hn::Sub(LoadF32N(df, args.m + i, lanes), g), g);
    const FloatVec v =
        hn::MulAdd(beta2, LoadF32N(df, args.v + i, lanes), hn::Mul(one_minus_beta2, hn::Mul(g, g)));
    StoreF32N(m, df, args.m + i, lanes);
    StoreF32N(v, df, args.v + i, lanes);
    const FloatVec denominator = hn::MulAdd(hn::Sqrt(v), v_scale, eps);
    const FloatVec kept = hn::Mul(LoadF32N(df, args.value + i, lanes), keep);
    StoreValue(args, hn::NegMulAdd(step_size, hn::Div(m, denominator), kept), i, lanes);
  });
}

void SgdRange(const SgdArgs& args, const ParameterRange& range) {
  const FloatTag df;
  const FloatVec lr = hn::Set(df, args.lr * range.lr_scale);
  const FloatVec decay = hn::Set(df, range.weight_decay);
  const FloatVec momentum = hn::Set(df, args.momentum_decay);
  const FloatVec grad_scale = hn::Set(df, args.grad_scale);
  ForEachVector(df, range.end - range.begin, [&](int64_t k, auto lanes) HWY_ATTR {
    const int64_t i = range.begin + k;
    const FloatVec value = LoadF32N(df, args.value + i, lanes);
    const FloatVec scaled = hn::Mul(LoadF32N(df, args.grad + i, lanes), grad_scale);
    const FloatVec g = hn::MulAdd(decay, value, scaled);
    FloatVec d = g;
    if (args.momentum != nullptr) {
      const FloatVec b = hn::MulAdd(momentum, LoadF32N(df, args.momentum + i, lanes), g);
      StoreF32N(b, df, args.momentum + i, lanes);
      d = args.nesterov ? hn::MulAdd(momentum, b, g) : b;
    }
    StoreValue(args, hn::NegMulAdd(lr, d, value), i, lanes);
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(AdamWRange);
HWY_EXPORT(SgdRange);

// Calls fn(range) in parallel for pieces of the ranges.
template <typename Fn>
void ForEachPiece(const OptimizerArgs& args, const Fn& fn) {
  constexpr int64_t kGrain = int64_t{1} << 15;
  const ParameterRange* last = args.ranges + args.num_ranges;
  ParallelFor(args.n, kGrain, [&](int64_t begin, int64_t end) {
    const auto ends_before = [](const ParameterRange& r, int64_t i) { return r.end <= i; };
    const ParameterRange* range = std::lower_bound(args.ranges, last, begin, ends_before);
    for (; range != last && range->begin < end; ++range) {
      ParameterRange piece = *range;
      piece.begin = std::max(piece.begin, begin);
      piece.end = std::min(piece.end, end);
      fn(piece);
    }
  });
}

void AdamWCpu(const AdamWArgs& args) {
  ForEachPiece(args, [&](const ParameterRange& range) {
    HWY_DYNAMIC_DISPATCH(AdamWRange)(args, range);
  });
}

void SgdCpu(const SgdArgs& args) {
  ForEachPiece(args, [&](const ParameterRange& range) {
    HWY_DYNAMIC_DISPATCH(SgdRange)(args, range);
  });
}

REGISTER_KERNEL(adamw, Device::kCpu, AdamWCpu);
REGISTER_KERNEL(sgd, Device::kCpu, SgdCpu);

}  // namespace
}  // namespace tessera
#endif
