// Choosing the C++ type of a kernel from the dtype of its tensors.
#ifndef TESSERA_TENSOR_OPS_FLOAT_TYPES_H_
#define TESSERA_TENSOR_OPS_FLOAT_TYPES_H_

#include "core/dtype.h"

namespace tessera {

// True for the types that kernels load as floats: f32 and bf16.
constexpr bool IsFloat(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16; }

// Calls fn(T()) with T = float or BF16, as dtype says.
template <typename Fn>
void WithFloatType(DType dtype, const Fn& fn) {
  if (dtype == DType::kBF16) {
    fn(BF16());
  } else {
    fn(float());
  }
}

// Calls fn(A(), B()) for two dtypes.
template <typename Fn>
void WithFloatTypes(DType a, DType b, const Fn& fn) {
  WithFloatType(a,
                [&](auto a_type) { WithFloatType(b, [&](auto b_type) { fn(a_type, b_type); }); });
}

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_FLOAT_TYPES_H_
