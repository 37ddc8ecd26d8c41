// Conversion between f32 and bf16.
#ifndef TESSERA_TENSOR_OPS_CAST_CAST_H_
#define TESSERA_TENSOR_OPS_CAST_CAST_H_

#include <cstdint>

#include "tensor/ops/cast/cast_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// x converted to `dtype`, rounded to nearest even; both f32 or bf16. A tensor that has the dtype
// already is returned as it is, sharing its storage.
Tensor Cast(const Tensor& x, DType dtype);
// Writes x, converted, to y: as many elements of either dtype.
void CastTo(const Tensor& x, const Tensor& y);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_CAST_CAST_H_
