// The network behind position biases on the CPU: hidden values live in registers. Forward has table
// entries in the lanes, backward hidden units, so that neither sums over lanes.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention/aggregated/log_cpb_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>
#include <cstdint>

#include "attention/aggregated/log_cpb_kernel.h"
#include "core/parallel.h"
#include "tensor/simd-inl.h"
#include "tensor/tensor.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

// Heads that a pass over the hidden units serves.
constexpr int kMaxHeads = 8;

// Calls fn(head, count) with counts of 8, 4, 2 and 1 as constants until all heads are covered.
template <int kCount = kMaxHeads, typename Fn>
void ForEachHeads(int64_t head, int64_t end, const Fn& fn) {
  for (; head + kCount <= end; head += kCount) fn.template Run<kCount>(head);
  if constexpr (kCount > 1) ForEachHeads<kCount / 2>(head, end, fn);
}

// Entries of row i of the table for kCount heads.
struct ForwardRow {
  const LogCpbArgs& args;
  int64_t row;
  // The part of fc1's output that does not depend on x, [hidden].
  const float* at_y;

  template <int kCount>
  void Run(int64_t head) const {
    const FloatTag df;
    const int64_t hidden = args.hidden;
    const float* fc2 = args.fc2 + head * hidden;
    ForEachVector(df, args.n, [&](int64_t i, auto lanes) HWY_ATTR {
      const FloatVec x = LoadF32N(df, args.x + i, lanes);
      FloatVec sums[kCount];
      HWY_UNROLL(8)
      for (int k = 0; k < kCount; ++k) sums[k] = hn::Set(df, args.fc2_bias[head + k]);
      for (int64_t u = 0; u < hidden; ++u) {
        const FloatVec value =
            hn::MulAdd(hn::Set(df, args.fc1[2 * u + 1]), x, hn::Set(df, at_y[u]));
        const FloatVec active = hn::Max(value, hn::Zero(df));
        HWY_UNROLL(8)
        for (int k = 0; k < kCount; ++k) {
          sums[k] = hn::MulAdd(hn::Set(df, fc2[k * hidden + u]), active, sums[k]);
        }
      }
      HWY_UNROLL(8)
      for (int k = 0; k < kCount; ++k) {
        StoreF32N(sums[k], df, args.out + ((head + k) * args.m + row) * args.n + i, lanes);
      }
    });
  }
};

// Gradients of one vector of hidden units. `n` of them exist.
template <typename L>
struct BackwardUnits {
  const LogCpbGradArgs& args;
  int64_t unit;
  L n;
  FloatVec fc1_y, fc1_x, fc1_bias;
  float* sums;  // [3, lanes]: of fc1's two columns and its bias

  template <int kCount>
  void Run(int64_t head) const {
    const FloatTag df;
    const LogCpbArgs& f = args.forward;
    const int64_t lanes = static_cast<int64_t>(hn::Lanes(df)), entries = f.m * f.n;
    FloatVec fc2[kCount], d_fc2[kCount];
    HWY_UNROLL(8)
    for (int k = 0; k < kCount; ++k) {
      fc2[k] = LoadF32N(df, f.fc2 + (head + k) * f.hidden + unit, n);
      d_fc2[k] = hn::Zero(df);
    }
    FloatVec d_y = hn::Load(df, sums), d_x = hn::Load(df, sums + lanes),
             d_bias = hn::Load(df, sums + 2 * lanes);
    for (int64_t i = 0; i < f.m; ++i) {
      const FloatVec at_y = hn::MulAdd(fc1_y, hn::Set(df, f.y[i]), fc1_bias);
      const float* d_out = args.d_out + head * entries + i * f.n;
      // Sums over a row first: short sums lose less.
      FloatVec row_bias = hn::Zero(df), row_x = hn::Zero(df), row_fc2[kCount];
      HWY_UNROLL(8)
      for (int k = 0; k < kCount; ++k) row_fc2[k] = hn::Zero(df);
      for (int64_t j = 0; j < f.n; ++j) {
        const FloatVec x = hn::Set(df, f.x[j]);
        const FloatVec value = hn::MulAdd(fc1_x, x, at_y);
        const FloatVec active = hn::Max(value, hn::Zero(df));
        FloatVec d = hn::Zero(df);
        HWY_UNROLL(8)
        for (int k = 0; k < kCount; ++k) {
          const FloatVec g = hn::Set(df, d_out[k * entries + j]);
          row_fc2[k] = hn::MulAdd(g, active, row_fc2[k]);
          d = hn::MulAdd(g, fc2[k], d);
        }
        d = hn::IfThenElseZero(hn::Gt(value, hn::Zero(df)), d);
        row_bias = hn::Add(row_bias, d);
        row_x = hn::MulAdd(d, x, row_x);
      }
      d_bias = hn::Add(d_bias, row_bias);
      d_x = hn::Add(d_x, row_x);
      d_y = hn::MulAdd(row_bias, hn::Set(df, f.y[i]), d_y);
      HWY_UNROLL(8)
      for (int k = 0; k < kCount; ++k) d_fc2[k] = hn::Add(d_fc2[k], row_fc2[k]);
    }
    hn::Store(d_y, df, sums);
    hn::Store(d_x, df, sums + lanes);
    hn::Store(d_bias, df, sums + 2 * lanes);
    HWY_UNROLL(8)
    for (int k = 0; k < kCount; ++k) {
      StoreF32N(d_fc2[k], df, args.d_fc2 + (head + k) * f.hidden + unit, n);
    }
  }
};

// fc1 [hidden, 2] as [2, hidden].
void SplitFc1(const LogCpbArgs& args, float* columns) {
  for (int64_t u = 0; u < args.hidden; ++u) {
    columns[u] = args.fc1[2 * u];
    columns[args.hidden + u] = args.fc1[2 * u + 1];
  }
}

template <typename L>
void BackwardVector(const LogCpbGradArgs& args, const float* columns, int64_t unit, L n) {
  const FloatTag df;
  const LogCpbArgs& f = args.forward;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  HWY_ALIGN float sums[3 * hn::MaxLanes(FloatTag())] = {};
  const BackwardUnits<L> units = {args,
                                  unit,
                                  n,
                                  LoadF32N(df, columns + unit, n),
                                  LoadF32N(df, columns + f.hidden + unit, n),
                                  LoadF32N(df, f.fc1_bias + unit, n),
                                  sums};
  ForEachHeads(0, f.num_heads, units);
  for (int64_t i = 0; i < std::min(lanes, f.hidden - unit); ++i) {
    args.d_fc1[2 * (unit + i)] = sums[i];
    args.d_fc1[2 * (unit + i) + 1] = sums[lanes + i];
  }
  StoreF32N(hn::Load(df, sums + 2 * lanes), df, args.d_fc1_bias + unit, n);
}

}  // namespace

void LogCpbForward(const LogCpbArgs& args) {
  const Tensor at_y = Tensor::Empty({args.m, args.hidden}, DType::kF32);
  ParallelFor(args.m, 1, [&](int64_t row, int64_t) {
    float* values = at_y.data<float>() + row * args.hidden;
    for (int64_t u = 0; u < args.hidden; ++u) {
      values[u] = args.fc1[2 * u] * args.y[row] + args.fc1_bias[u];
    }
    ForEachHeads(0, args.num_heads, ForwardRow{args, row, values});
  });
}

void LogCpbBackward(const LogCpbGradArgs& args) {
  const FloatTag df;
  const LogCpbArgs& f = args.forward;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  const Tensor columns = Tensor::Empty({2, f.hidden}, DType::kF32);
  SplitFc1(f, columns.data<float>());
  ParallelFor(NumChunks(f.hidden, lanes), 1, [&](int64_t i, int64_t) {
    const int64_t unit = i * lanes;
    if (unit + lanes <= f.hidden) {
      BackwardVector(args, columns.data<float>(), unit, WholeVector());
    } else {
      BackwardVector(args, columns.data<float>(), unit, f.hidden - unit);
    }
  });
  for (int64_t head = 0; head < f.num_heads; ++head) {
    float sum = 0;
    for (int64_t i = 0; i < f.m; ++i) {
      const float* row = args.d_out + (head * f.m + i) * f.n;
      sum += SumF32(df, SumOverVectors(df, f.n, [=](int64_t j, auto n) HWY_ATTR {
                      return LoadF32N(df, row + j, n);
                    }));
    }
    args.d_fc2_bias[head] = sum;
  }
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(LogCpbForward);
HWY_EXPORT(LogCpbBackward);

void LogCpbForwardCpu(const LogCpbArgs& args) { HWY_DYNAMIC_DISPATCH(LogCpbForward)(args); }
void LogCpbBackwardCpu(const LogCpbGradArgs& args) { HWY_DYNAMIC_DISPATCH(LogCpbBackward)(args); }

REGISTER_KERNEL(log_cpb_forward, Device::kCpu, LogCpbForwardCpu);
REGISTER_KERNEL(log_cpb_backward, Device::kCpu, LogCpbBackwardCpu);

}  // namespace
}  // namespace tessera
#endif  // HWY_ONCE
