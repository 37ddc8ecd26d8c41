// Differentiable cutting and padding of maps.
#ifndef TESSERA_AUTOGRAD_OPS_FIT_MAP_H_
#define TESSERA_AUTOGRAD_OPS_FIT_MAP_H_

#include "tensor/tensor.h"

namespace tessera {

// x [B, H, W, C] cut off, or padded with zeros, at the bottom and right: [B, height, width, C]. x
// itself if it has that size.
Tensor FitMap(const Tensor& x, int64_t height, int64_t width);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_FIT_MAP_H_
