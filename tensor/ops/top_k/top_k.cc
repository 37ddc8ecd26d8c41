#include "tensor/ops/top_k/top_k.h"

#include <vector>

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const TopKArgs&)> top_k("top_k");

namespace ops {

TopKResult TopK(const Tensor& x, int64_t k) {
  CHECK(x.rank() >= 1 && IsFloat(x.dtype()) && k >= 1 && k <= x.dim(-1))
      << "top_k(" << k << "): " << Describe(x);
  std::vector<int64_t> dims(x.shape().dims().begin(), x.shape().dims().end());
  dims.back() = k;
  TopKResult result{Tensor::Empty(Shape(dims), DType::kF32, x.device()),
                    Tensor::Empty(Shape(dims), DType::kI32, x.device())};
  if (x.numel() == 0) return result;
  top_k(x.device(), TopKArgs{.x = x.raw(),
                             .values = result.values.data<float>(),
                             .indices = result.indices.data<int32_t>(),
                             .rows = NumRows(x),
                             .columns = x.dim(-1),
                             .k = k,
                             .x_dtype = x.dtype()});
  return result;
}

}  // namespace ops
}  // namespace tessera
