#include "tensor/ops/add/add.h"

namespace tessera {

constinit KernelSlot<void(const AddInPlaceArgs&)> add_in_place("add_in_place");

namespace ops {
namespace {
bool IsFloating(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16; }
}  // namespace

void AddInPlace(const Tensor& y, const Tensor& x) {
  CHECK(y.numel() == x.numel() && IsFloating(y.dtype()) && IsFloating(x.dtype()))
      << "add_in_place: " << Name(y.dtype()) << y.shape() << " += " << Name(x.dtype()) << x.shape();
  if (y.numel() == 0) return;
  add_in_place(y.device(), AddInPlaceArgs{y.raw(), x.raw(), y.numel(), y.dtype(), x.dtype()});
}

}  // namespace ops
}  // namespace tessera
