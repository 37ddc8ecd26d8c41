#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/column_sum/column_sum_cpu.cc"
#include "core/parallel.h"
#include "tensor/ops/column_sum/column_sum.h"
#include "tensor/simd_targets.h"
// After simd_targets.h, which chooses the instruction sets.
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

// sum[0, columns) += the rows of x.
template <typename T>
void AddRows(const T* x, int64_t rows, int64_t columns, float* sum) {
  const FloatTag df;
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = x + r * columns;
    ForEachVector(df, columns, [&](int64_t c, auto n) HWY_ATTR {
      StoreF32N(hn::Add(LoadF32N(df, sum + c, n), LoadF32N(df, row + c, n)), df, sum + c, n);
    });
  }
}

template <typename T>
void ColumnSumOf(const ColumnSumArgs& args) {
  const T* x = static_cast<const T*>(args.x);
  const int64_t columns = args.columns;
  ParallelFor(args.rows, kColumnSumGrain, [&](int64_t begin, int64_t end) {
    float* partial = args.partials + begin / kColumnSumGrain * columns;
    std::fill(partial, partial + columns, 0.0f);
    AddRows(x + begin * columns, end - begin, columns, partial);
  });
  if (!args.accumulate) std::fill(args.sum, args.sum + columns, 0.0f);
  AddRows(args.partials, NumChunks(args.rows, kColumnSumGrain), columns, args.sum);
}

void ColumnSumVector(const ColumnSumArgs& args) {
  if (args.dtype == DType::kF32) {
    ColumnSumOf<float>(args);
  } else {
    ColumnSumOf<BF16>(args);
  }
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(ColumnSumVector);
void ColumnSumCpu(const ColumnSumArgs& args) { HWY_DYNAMIC_DISPATCH(ColumnSumVector)(args); }
REGISTER_KERNEL(column_sum, Device::kCpu, ColumnSumCpu);

}  // namespace
}  // namespace tessera
#endif
