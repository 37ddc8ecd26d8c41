#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/activation/activation_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "core/parallel.h"
#include "tensor/activation-inl.h"
#include "tensor/ops/activation/activation.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/partial_sums.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

template <Activation kActivation, typename T>
void Forward(const T* x, T* y, int64_t n) {
  const FloatTag df;
  ForEachVector(df, n, [=](int64_t i, auto lanes) HWY_ATTR {
    StoreF32N(Activate<kActivation, T>(df, LoadF32N(df, x + i, lanes)), df, y + i, lanes);
  });
}

void ForwardChunk(const ActivationArgs& args, int64_t begin, int64_t end) {
  WithActivation(args.activation, [&](auto activation) {
    WithFloatType(args.dtype, [&](auto type) {
      using T = decltype(type);
      Forward<decltype(activation)::value>(static_cast<const T*>(args.x) + begin,
                                           static_cast<T*>(args.y) + begin, end - begin);
    });
  });
}

// `n` elements of dx, which are also added to `sums` when kSum.
template <Activation kActivation, bool kAccumulate, bool kSum, typename T>
void Backward(const T* dy, const T* x, T* dx, int64_t n, float* sums) {
  const FloatTag df;
  ForEachVector(df, n, [=](int64_t i, auto lanes) HWY_ATTR {
    FloatVec d = hn::Mul(LoadF32N(df, dy + i, lanes),
                         ActivationDerivative<kActivation, T>(df, LoadF32N(df, x + i, lanes)));
    if constexpr (kSum) {
      StoreF32N(hn::Add(LoadF32N(df, sums + i, lanes), d), df, sums + i, lanes);
    }
    if constexpr (kAccumulate) d = hn::Add(d, LoadF32N(df, dx + i, lanes));
    StoreF32N(d, df, dx + i, lanes);
  });
}

template <Activation kActivation, bool kAccumulate, typename T>
void BackwardRowsOf(const ActivationBackwardArgs& args, int64_t begin, int64_t end, float* sums) {
  const int64_t columns = args.columns;
  const T* dy = static_cast<const T*>(args.dy) + begin * columns;
  const T* x = static_cast<const T*>(args.x) + begin * columns;
  T* dx = static_cast<T*>(args.dx) + begin * columns;
  T* y = static_cast<T*>(args.y) + begin * columns;
  for (int64_t i = 0; i < (end - begin) * columns; i += columns) {
    if (sums == nullptr) {
      Backward<kActivation, kAccumulate, false>(dy + i, x + i, dx + i, columns, sums);
    } else {
      Backward<kActivation, kAccumulate, true>(dy + i, x + i, dx + i, columns, sums);
    }
    // The row is still in the cache.
    if (args.y != nullptr) Forward<kActivation>(x + i, y + i, columns);
  }
}

// Rows [begin, end) of dx, and of y if wanted; their sum is added to `sums` unless that is null.
void BackwardRows(const ActivationBackwardArgs& args, int64_t begin, int64_t end, float* sums) {
  WithActivation(args.activation, [&](auto activation) {
    constexpr Activation kActivation = decltype(activation)::value;
    WithFloatType(args.dtype, [&](auto type) {
      using T = decltype(type);
      if (args.accumulate_dx) {
        BackwardRowsOf<kActivation, true, T>(args, begin, end, sums);
      } else {
        BackwardRowsOf<kActivation, false, T>(args, begin, end, sums);
      }
    });
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(ForwardChunk);
HWY_EXPORT(BackwardRows);

constexpr int64_t kGrain = int64_t{1} << 14;

void ActivationCpu(const ActivationArgs& args) {
  ParallelFor(args.n, kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ForwardChunk)(args, begin, end);
  });
}

void ActivationBackwardCpu(const ActivationBackwardArgs& args) {
  const int64_t chunk_rows = RowsPerChunk(args.rows, args.columns);
  const bool wants_dbias = args.dbias != nullptr;
  const PartialSums sums(NumChunks(args.rows, chunk_rows), wants_dbias ? args.columns : 0);
  ParallelFor(args.rows, chunk_rows, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(BackwardRows)
    (args, begin, end, wants_dbias ? sums.chunk(begin / chunk_rows) : nullptr);
  });
  if (wants_dbias) sums.AddUp(0, args.columns, args.dbias, args.accumulate_dbias);
}

REGISTER_KERNEL(activation, Device::kCpu, ActivationCpu);
REGISTER_KERNEL(activation_backward, Device::kCpu, ActivationBackwardCpu);

}  // namespace
}  // namespace tessera
#endif
