#include "core/cuda/column_sums.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/column_sum/column_sum_kernel.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

template <typename T>
struct AddRow {
  const T* x;
  int64_t columns;

  template <int kWidth>
  DEVICE void Run(int64_t row, int64_t column, float (&sums)[1][kWidth]) const {
    float v[kWidth];
    LoadFloats(x + row * columns + column, v);
    UNROLL for (int j = 0; j < kWidth; ++j) sums[0][j] += v[j];
  }
};

template <int kWidth, typename T>
void SumChunks(const ColumnSumArgs& args) {
  LaunchPartialColumnSums<kWidth, 1>(AddRow<T>{static_cast<const T*>(args.x), args.columns},
                                     args.rows, args.columns, kColumnSumGrain, args.partials);
}

void ColumnSumCuda(const ColumnSumArgs& args) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    if (args.columns % kPackedElements == 0 && IsAligned16(args.x)) {
      SumChunks<kPackedElements, T>(args);
    } else {
      SumChunks<1, T>(args);
    }
  });
  LaunchAddUpPartials(args.partials, CeilDiv(args.rows, kColumnSumGrain), args.columns,
                      args.columns, {.out = args.sum, .accumulate = args.accumulate});
}

REGISTER_CUDA_KERNEL(column_sum, ColumnSumCuda);

}  // namespace
}  // namespace tessera
