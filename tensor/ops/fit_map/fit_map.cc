#include "tensor/ops/fit_map/fit_map.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const FitMapArgs&)> fit_map("fit_map");

namespace ops {

Tensor FitMap(const Tensor& x, int64_t height, int64_t width) {
  CHECK(x.rank() == 4 && IsFloat(x.dtype()) && height >= 0 && width >= 0)
      << "fit_map: " << Describe(x) << " to " << height << " x " << width;
  Tensor y = Tensor::Empty({x.dim(0), height, width, x.dim(3)}, x.dtype(), x.device());
  if (y.numel() == 0) return y;
  fit_map(x.device(), FitMapArgs{.dtype = x.dtype(),
                                 .x = x.raw(),
                                 .y = y.raw(),
                                 .batch = x.dim(0),
                                 .height = x.dim(1),
                                 .width = x.dim(2),
                                 .out_height = height,
                                 .out_width = width,
                                 .channels = x.dim(3)});
  return y;
}

}  // namespace ops
}  // namespace tessera
