// c = a^T b for two tall matrices: the weight gradient of a layer with many tokens and few
// channels, where oneDNN spends up to half of its time on transposing a.
#ifndef TESSERA_TENSOR_OPS_MATMUL_TALL_PRODUCT_H_
#define TESSERA_TENSOR_OPS_MATMUL_TALL_PRODUCT_H_

#include "tensor/ops/matmul/matmul.h"

namespace tessera {

// True if the machine has the instructions (AVX-512 with avx512_bf16) and the product is one of
// those: a stored [k, m], b [k, n], both f32 or bf16, c f32, m or n at most 192 and k in the
// thousands.
bool IsTallProduct(const MatMulArgs& args);

// The same bits for any number of threads.
void RunTallProduct(const MatMulArgs& args);

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_MATMUL_TALL_PRODUCT_H_
