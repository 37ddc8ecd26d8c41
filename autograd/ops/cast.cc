#include "autograd/ops/cast.h"

#include "autograd/tape.h"
#include "tensor/ops/cast/cast.h"

namespace tessera {

Tensor Cast(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return x;
  Tensor y = ops::Cast(x, dtype);
  Record("cast", {&x}, {&y},
         [x_dtype = x.dtype()](GradContext& g) { g.Add(0, ops::Cast(g.out(), x_dtype)); });
  return y;
}

}  // namespace tessera
