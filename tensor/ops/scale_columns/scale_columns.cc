#include "tensor/ops/scale_columns/scale_columns.h"

#include "core/parallel.h"
#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const ScaleColumnsArgs&)> scale_columns("scale_columns");
constinit KernelSlot<void(const ScaleColumnsBackwardArgs&)> scale_columns_backward(
    "scale_columns_backward");

namespace ops {
namespace {

// Of as many elements of x's dtype.
bool IsLike(const Tensor& x, const Tensor& y) {
  return y.dtype() == x.dtype() && y.numel() == x.numel();
}

void CheckScale(const Tensor& x, const Tensor& scale, const Tensor& y) {
  CHECK(IsFloat(x.dtype()) && x.rank() >= 1 && scale.dtype() == DType::kF32 &&
        scale.numel() == x.dim(-1) && IsLike(x, y))
      << "scale_columns: " << Describe(x) << " by " << Describe(scale) << " -> " << Describe(y);
}

}  // namespace

void ScaleColumnsTo(const Tensor& x, const Tensor& scale, const Tensor& y) {
  CheckScale(x, scale, y);
  if (x.numel() == 0) return;
  scale_columns(x.device(), ScaleColumnsArgs{.x = x.raw(),
                                             .scale = scale.data<float>(),
                                             .y = y.raw(),
                                             .rows = x.numel() / x.dim(-1),
                                             .columns = x.dim(-1),
                                             .dtype = x.dtype()});
}

void ScaleColumnsBackward(const Tensor& dy, const Tensor& x, const Tensor& scale, const Tensor& dx,
                          const Tensor& dscale, bool accumulate) {
  CheckScale(x, scale, dx);
  CHECK(IsLike(x, dy) && dscale.dtype() == DType::kF32 && dscale.numel() == scale.numel())
      << "scale_columns: " << Describe(dy) << " of " << Describe(x) << " -> " << Describe(dscale);
  const int64_t columns = x.dim(-1);
  if (columns == 0) return;
  const int64_t rows = x.numel() / columns;
  const Tensor partials =
      Tensor::Empty({NumChunks(rows, kScaleColumnsGrain), columns}, DType::kF32, x.device());
  scale_columns_backward(x.device(), ScaleColumnsBackwardArgs{.dy = dy.raw(),
                                                              .x = x.raw(),
                                                              .scale = scale.data<float>(),
                                                              .dx = dx.raw(),
                                                              .dscale = dscale.data<float>(),
                                                              .partials = partials.data<float>(),
                                                              .rows = rows,
                                                              .columns = columns,
                                                              .accumulate = accumulate,
                                                              .dtype = x.dtype()});
}

}  // namespace ops
}  // namespace tessera
