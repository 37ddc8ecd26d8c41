#include "tensor/ops/residual/residual.h"

#include "tensor/ops/cast/cast.h"
#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const AddResidualArgs&)> add_residual("add_residual");
constinit KernelSlot<void(const ScaleSamplesArgs&)> scale_samples("scale_samples");

namespace ops {
namespace {

bool ScaleFits(const Tensor& scale, const Tensor& x) {
  return !scale.defined() || (x.rank() >= 1 && scale.numel() == x.dim(0));
}

}  // namespace

void AddResidualTo(const Tensor& x, const Tensor& r, const Tensor& scale, const Tensor& y) {
  CHECK(x.numel() == r.numel() && x.numel() == y.numel() && IsFloat(r.dtype()) &&
        ScaleFits(scale, x))
      << "add_residual: " << Describe(x) << " + " << Describe(scale) << " * " << Describe(r)
      << " -> " << Describe(y);
  if (x.numel() == 0) return;
  const int64_t batch = scale.defined() ? x.dim(0) : 1;
  add_residual(x.device(), AddResidualArgs{.x = x.data<float>(),
                                           .r = r.raw(),
                                           .scale = scale.defined() ? scale.data<float>() : nullptr,
                                           .y = y.data<float>(),
                                           .batch = batch,
                                           .n = x.numel() / batch,
                                           .r_dtype = r.dtype()});
}

Tensor ScaleSamples(const Tensor& x, const Tensor& scale, DType dtype) {
  CHECK(IsFloat(dtype) && ScaleFits(scale, x))
      << "scale_samples: " << Describe(scale) << " * " << Describe(x) << " -> " << Name(dtype);
  if (!scale.defined()) return Cast(x, dtype);
  Tensor y = Tensor::Empty(x.shape(), dtype, x.device());
  if (x.numel() == 0) return y;
  scale_samples(x.device(), ScaleSamplesArgs{.x = x.data<float>(),
                                             .scale = scale.data<float>(),
                                             .y = y.raw(),
                                             .batch = x.dim(0),
                                             .n = x.numel() / x.dim(0),
                                             .y_dtype = dtype});
  return y;
}

}  // namespace ops
}  // namespace tessera
