#include "tensor/ops/add/add.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const AddInPlaceArgs&)> add_in_place("add_in_place");

namespace ops {

void AddInPlace(const Tensor& y, const Tensor& x) {
  CHECK(y.numel() == x.numel() && IsFloat(y.dtype()) && IsFloat(x.dtype()))
      << "add_in_place: " << Describe(y) << " += " << Describe(x);
  if (y.numel() == 0) return;
  add_in_place(y.device(), AddInPlaceArgs{y.raw(), x.raw(), y.numel(), y.dtype(), x.dtype()});
}

}  // namespace ops
}  // namespace tessera
