#include <algorithm>

#include "core/cuda/elementwise.h"
#include "tensor/ops/optimizer/optimizer_kernel.h"

namespace tessera {
namespace {

constexpr int kThreads = 256;
constexpr int kRangesPerLaunch = 64;

// Ranges travel as a parameter of the kernel, so that a step copies nothing to the device.
struct RangeTable {
  int count;
  ParameterRange ranges[kRangesPerLaunch];

  // The first range that ends after element i; `count` if there is none.
  DEVICE int Find(int64_t i) const {
    int low = 0, high = count;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (ranges[middle].end <= i) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
};

// Stores new values with their copies.
template <int kCount>
DEVICE void StoreValues(const OptimizerArgs& args, const float (&value)[kCount], int64_t i) {
  StoreFloats(value, args.value + i);
  if (args.bf16 != nullptr) StoreFloats(value, args.bf16 + i);
  if (args.ema == nullptr) return;
  float ema[kCount];
  LoadFloats(args.ema + i, ema);
  UNROLL for (int j = 0; j < kCount; ++j) {
    ema[j] = fmaf(args.ema_decay, ema[j] - value[j], value[j]);
  }
  StoreFloats(ema, args.ema + i);
}

template <int kCount>
DEVICE void Update(const AdamWArgs& args, const ParameterRange& range, int64_t i) {
  const float lr = args.lr * range.lr_scale;
  const float keep = 1.0f - lr * range.weight_decay;
  const float step_size = lr / args.bias_correction1;
  const float v_scale = 1.0f / sqrtf(args.bias_correction2);
  float value[kCount], grad[kCount], m[kCount], v[kCount];
  LoadFloats(args.value + i, value);
  LoadFloats(args.grad + i, grad);
  LoadFloats(args.m + i, m);
  LoadFloats(args.v + i, v);
  UNROLL for (int j = 0; j < kCount; ++j) {
    const float g = grad[j] * args.grad_scale;
    m[j] = fmaf(args.beta1, m[j] - g, g);
    v[j] = fmaf(args.beta2, v[j], (1.0f - args.beta2) * g * g);
    const float denominator = fmaf(sqrtf(v[j]), v_scale, args.eps);
    value[j] = fmaf(-step_size, m[j] / denominator, value[j] * keep);
  }
  StoreFloats(m, args.m + i);
  StoreFloats(v, args.v + i);
  StoreValues(args, value, i);
}

template <int kCount>
DEVICE void Update(const SgdArgs& args, const ParameterRange& range, int64_t i) {
  const float lr = args.lr * range.lr_scale;
  float value[kCount], d[kCount];
  LoadFloats(args.value + i, value);
  LoadFloats(args.grad + i, d);
  UNROLL for (int j = 0; j < kCount; ++j) {
    d[j] = fmaf(range.weight_decay, value[j], d[j] * args.grad_scale);
  }
  if (args.momentum != nullptr) {
    float b[kCount];
    LoadFloats(args.momentum + i, b);
    UNROLL for (int j = 0; j < kCount; ++j) {
      b[j] = fmaf(args.momentum_decay, b[j], d[j]);
      d[j] = args.nesterov ? fmaf(args.momentum_decay, b[j], d[j]) : b[j];
    }
    StoreFloats(b, args.momentum + i);
  }
  UNROLL for (int j = 0; j < kCount; ++j) value[j] = fmaf(-lr, d[j], value[j]);
  StoreValues(args, value, i);
}

// Elements from `begin` on, kWidth per thread: at once where they lie in one range, else one by
// one.
template <int kWidth, typename Args>
KERNEL(kThreads)
Sweep(GRID_CONSTANT Args args, GRID_CONSTANT RangeTable table, int64_t begin) {
  const int64_t i = begin + (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth;
  for (int r = table.Find(i); r < table.count && table.ranges[r].begin < i + kWidth; ++r) {
    const ParameterRange& range = table.ranges[r];
    if (range.begin <= i && range.end >= i + kWidth) {
      Update<kWidth>(args, range, i);
    } else {
      const int64_t first = range.begin > i ? range.begin : i;
      const int64_t end = range.end < i + kWidth ? range.end : i + kWidth;
      for (int64_t j = first; j < end; ++j) Update<1>(args, range, j);
    }
  }
}

template <typename Args>
void SweepRanges(Args args, bool aligned) {
  // Host memory, which kernels must not be given.
  const ParameterRange* const ranges = args.ranges;
  args.ranges = nullptr;
  for (int64_t first = 0; first < args.num_ranges; first += kRangesPerLaunch) {
    RangeTable table = {};
    table.count = static_cast<int>(std::min<int64_t>(kRangesPerLaunch, args.num_ranges - first));
    std::copy_n(ranges + first, table.count, table.ranges);
    const int64_t begin = table.ranges[0].begin / kPackedElements * kPackedElements;
    const int64_t n = table.ranges[table.count - 1].end - begin;
    if (aligned) {
      Launch<Sweep<kPackedElements, Args>>({.x = CeilDiv(n, kThreads * kPackedElements)},
                                           {.x = kThreads}, 0, CurrentStream(), args, table, begin);
    } else {
      Launch<Sweep<1, Args>>({.x = CeilDiv(n, kThreads)}, {.x = kThreads}, 0, CurrentStream(), args,
                             table, begin);
    }
  }
}

bool BuffersAreAligned(const OptimizerArgs& args) {
  return IsAligned16(args.value) && IsAligned16(args.grad) && IsAligned16(args.bf16) &&
         IsAligned16(args.ema);
}

void AdamWCuda(const AdamWArgs& args) {
  SweepRanges(args, BuffersAreAligned(args) && IsAligned16(args.m) && IsAligned16(args.v));
}

void SgdCuda(const SgdArgs& args) {
  SweepRanges(args, BuffersAreAligned(args) && IsAligned16(args.momentum));
}

REGISTER_CUDA_KERNEL(adamw, AdamWCuda);
REGISTER_CUDA_KERNEL(sgd, SgdCuda);

}  // namespace
}  // namespace tessera
