#include "tensor/ops/squared_norm/squared_norm.h"

namespace tessera {

constinit KernelSlot<void(const SquaredNormArgs&)> squared_norm("squared_norm");

namespace ops {

double SquaredNorm(const Tensor& x) {
  double result = 0;
  if (x.numel() == 0) return result;
  squared_norm(x.device(), SquaredNormArgs{x.data<float>(), x.numel(), &result});
  return result;
}

}  // namespace ops
}  // namespace tessera
