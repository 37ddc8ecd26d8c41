#include "tensor/ops/softmax/softmax.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const SoftmaxArgs&)> softmax("softmax");

namespace ops {

Tensor Softmax(const Tensor& x) {
  CHECK(x.rank() >= 1 && IsFloat(x.dtype())) << "softmax: " << Describe(x);
  Tensor y = Tensor::Empty(x.shape(), DType::kF32, x.device());
  if (x.numel() == 0) return y;
  softmax(x.device(), SoftmaxArgs{.x = x.raw(),
                                  .y = y.data<float>(),
                                  .rows = NumRows(x),
                                  .columns = x.dim(-1),
                                  .x_dtype = x.dtype()});
  return y;
}

}  // namespace ops
}  // namespace tessera
