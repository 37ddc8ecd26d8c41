// Matrix products on the device, in the terms of cuBLASLt: matrices are column-major.
#ifndef TESSERA_CORE_CUDA_GEMM_H_
#define TESSERA_CORE_CUDA_GEMM_H_

#include <cstdint>

#include "core/cuda/launch.h"
#include "core/dtype.h"

namespace tessera {

// c[m, n] = op(a) op(b) + bias[m] (+ c, when accumulate), all packed. a is stored [m, k] or, with
// transpose_a, [k, m]; b is stored [k, n] or [n, k]. Sums are f32, and the same bits in every run.
struct GemmArgs {
  int64_t m, n, k;
  const void* a;
  const void* b;
  const void* bias;  // of c's dtype, one number per row of c; or null
  void* c;
  bool transpose_a;
  bool transpose_b;
  bool accumulate;
  DType in_dtype;   // of a and b: f32 or bf16
  DType out_dtype;  // of c: f32, or bf16 when the inputs are bf16
};
void Gemm(const GemmArgs& args, Stream stream);

}  // namespace tessera

#endif  // TESSERA_CORE_CUDA_GEMM_H_
