#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/gelu/gelu_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/gelu/gelu.h"
#include "tensor/ops/partial_sums.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

template <typename T>
void Forward(const T* x, T* y, int64_t n) {
  const FloatTag df;
  ForEachVector(df, n, [=](int64_t i, auto lanes) HWY_ATTR {
    StoreF32N(Gelu<T>(df, LoadF32N(df, x + i, lanes)), df, y + i, lanes);
  });
}

void ForwardChunk(const GeluArgs& args, int64_t begin, int64_t end) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    Forward(static_cast<const T*>(args.x) + begin, static_cast<T*>(args.y) + begin, end - begin);
  });
}

// `n` elements of dx, which are also added to `sums` when kSum.
template <bool kAccumulate, bool kSum, typename T>
void Backward(const T* dy, const T* x, T* dx, int64_t n, float* sums) {
  const FloatTag df;
  ForEachVector(df, n, [=](int64_t i, auto lanes) HWY_ATTR {
    FloatVec d =
        hn::Mul(LoadF32N(df, dy + i, lanes), GeluDerivative<T>(df, LoadF32N(df, x + i, lanes)));
    if constexpr (kSum) {
      StoreF32N(hn::Add(LoadF32N(df, sums + i, lanes), d), df, sums + i, lanes);
    }
    if constexpr (kAccumulate) d = hn::Add(d, LoadF32N(df, dx + i, lanes));
    StoreF32N(d, df, dx + i, lanes);
  });
}

template <bool kAccumulate, typename T>
void BackwardRowsOf(const GeluBackwardArgs& args, int64_t begin, int64_t end, float* sums) {
  const int64_t columns = args.columns;
  const T* dy = static_cast<const T*>(args.dy) + begin * columns;
  const T* x = static_cast<const T*>(args.x) + begin * columns;
  T* dx = static_cast<T*>(args.dx) + begin * columns;
  T* y = static_cast<T*>(args.y) + begin * columns;
  for (int64_t i = 0; i < (end - begin) * columns; i += columns) {
    if (sums == nullptr) {
      Backward<kAccumulate, false>(dy + i, x + i, dx + i, columns, sums);
    } else {
      Backward<kAccumulate, true>(dy + i, x + i, dx + i, columns, sums);
    }
    // The row is still in the cache.
    if (args.y != nullptr) Forward(x + i, y + i, columns);
  }
}

// Rows [begin, end) of dx, and of y if wanted; their sum is added to `sums` unless that is null.
void BackwardRows(const GeluBackwardArgs& args, int64_t begin, int64_t end, float* sums) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    if (args.accumulate_dx) {
      BackwardRowsOf<true, T>(args, begin, end, sums);
    } else {
      BackwardRowsOf<false, T>(args, begin, end, sums);
    }
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

void GeluCpu(const GeluArgs& args) {
  ParallelFor(args.n, kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(ForwardChunk)(args, begin, end);
  });
}

void GeluBackwardCpu(const GeluBackwardArgs& args) {
  const int64_t chunk_rows = RowsPerChunk(args.rows, args.columns);
  const bool wants_dbias = args.dbias != nullptr;
  const PartialSums sums(NumChunks(args.rows, chunk_rows), wants_dbias ? args.columns : 0);
  ParallelFor(args.rows, chunk_rows, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(BackwardRows)
    (args, begin, end, wants_dbias ? sums.chunk(begin / chunk_rows) : nullptr);
  });
  if (wants_dbias) sums.AddUp(0, args.columns, args.dbias, args.accumulate_dbias);
}

REGISTER_KERNEL(gelu, Device::kCpu, GeluCpu);
REGISTER_KERNEL(gelu_backward, Device::kCpu, GeluBackwardCpu);

}  // namespace
}  // namespace tessera
#endif
