#include "autograd/ops/fit_map.h"

#include "autograd/tape.h"
#include "tensor/ops/fit_map/fit_map.h"

namespace tessera {

Tensor FitMap(const Tensor& x, int64_t height, int64_t width) {
  if (x.dim(1) == height && x.dim(2) == width) return x;
  Tensor y = ops::FitMap(x, height, width);
  Record("fit_map", {&x}, {&y}, [shape = x.shape()](GradContext& g) {
    g.Add(0, ops::FitMap(g.out(), shape[1], shape[2]));
  });
  return y;
}

}  // namespace tessera
