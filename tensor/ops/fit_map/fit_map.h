// A map brought to another size at its bottom and right: cut off, or padded with zeros.
#ifndef TESSERA_TENSOR_OPS_FIT_MAP_FIT_MAP_H_
#define TESSERA_TENSOR_OPS_FIT_MAP_FIT_MAP_H_

#include "tensor/ops/fit_map/fit_map_kernel.h"
#include "tensor/tensor.h"

namespace tessera::ops {

// x [B, H, W, C], f32 or bf16 -> [B, height, width, C]. The gradient is the same with sizes
// exchanged.
Tensor FitMap(const Tensor& x, int64_t height, int64_t width);

}  // namespace tessera::ops

#endif  // TESSERA_TENSOR_OPS_FIT_MAP_FIT_MAP_H_
