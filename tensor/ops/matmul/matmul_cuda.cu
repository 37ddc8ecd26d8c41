#include "core/cuda/gemm.h"
#include "tensor/ops/cast/cast_kernel.h"
#include "tensor/ops/matmul/matmul_kernel.h"

namespace tessera {
namespace {

// To a library of column-major matrices, row-major c is c^T = op(b)^T op(a)^T.
void MatMulCuda(const MatMulArgs& args) {
  // It adds a bias of c's dtype.
  const bool round_bias = args.bias != nullptr && args.out_dtype == DType::kBF16;
  const Workspace<BF16> rounded(round_bias ? args.n : 0);
  if (round_bias) {
    cast(Device::kCuda, CastArgs{.x = args.bias,
                                 .y = rounded.data(),
                                 .n = args.n,
                                 .x_dtype = DType::kF32,
                                 .y_dtype = DType::kBF16});
  }
  Gemm({.m = args.n,
        .n = args.m,
        .k = args.k,
        .a = args.b,
        .b = args.a,
        .bias = round_bias ? static_cast<const void*>(rounded.data()) : args.bias,
        .c = args.c,
        .transpose_a = args.transpose_b,
        .transpose_b = args.transpose_a,
        .accumulate = args.accumulate,
        .in_dtype = args.in_dtype,
        .out_dtype = args.out_dtype},
       CurrentStream());
}

REGISTER_CUDA_KERNEL(matmul, MatMulCuda);

}  // namespace
}  // namespace tessera
