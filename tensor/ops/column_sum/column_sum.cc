#include "tensor/ops/column_sum/column_sum.h"

#include "core/parallel.h"

namespace tessera {

constinit KernelSlot<void(const ColumnSumArgs&)> column_sum("column_sum");

namespace ops {

void ColumnSum(const Tensor& x, const Tensor& sum, bool accumulate) {
  const bool floating = x.dtype() == DType::kF32 || x.dtype() == DType::kBF16;
  CHECK(floating && x.rank() >= 1 && sum.dtype() == DType::kF32 && sum.numel() == x.dim(-1))
      << "column_sum: " << Name(x.dtype()) << x.shape() << " -> " << Name(sum.dtype())
      << sum.shape();
  const int64_t columns = x.dim(-1);
  if (columns == 0) return;
  const int64_t rows = x.numel() / columns;
  const Tensor partials =
      Tensor::Empty({NumChunks(rows, kColumnSumGrain), columns}, DType::kF32, x.device());
  column_sum(x.device(), ColumnSumArgs{x.raw(), sum.data<float>(), partials.data<float>(), rows,
                                       columns, accumulate, x.dtype()});
}

}  // namespace ops
}  // namespace tessera
