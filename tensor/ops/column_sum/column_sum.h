// Sum over rows: the gradient of a bias.
#ifndef TESSERA_TENSOR_OPS_COLUMN_SUM_COLUMN_SUM_H_
#define TESSERA_TENSOR_OPS_COLUMN_SUM_COLUMN_SUM_H_

#include <cstdint>

#include "tensor/ops/column_sum/column_sum_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// sum[c] = sum over rows of x[r, c], written to (or added to) sum: x [..., C] f32 or bf16, sum f32
// [C]. The same bits for any number of threads.
void ColumnSum(const Tensor& x, const Tensor& sum, bool accumulate);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_COLUMN_SUM_COLUMN_SUM_H_
