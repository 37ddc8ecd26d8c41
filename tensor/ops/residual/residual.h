// Addition of a branch to the residual stream, with stochastic depth (Huang et al., arXiv
// 1603.09382).
#ifndef TESSERA_TENSOR_OPS_RESIDUAL_RESIDUAL_H_
#define TESSERA_TENSOR_OPS_RESIDUAL_RESIDUAL_H_

#include <cstdint>

#include "tensor/ops/residual/residual_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// y[b] = x[b] + scale[b] * r[b]: x and y f32 [B, ...], r f32 or bf16 of as many elements, scale f32
// [B], or undefined for 1. y may share the memory of x or of an f32 r.
void AddResidualTo(const Tensor& x, const Tensor& r, const Tensor& scale, const Tensor& y);

// scale[b] * x[b] converted to `dtype`: the gradient of r. x f32 [B, ...]. Without a scale and a
// change of dtype that is x itself, sharing its storage.
Tensor ScaleSamples(const Tensor& x, const Tensor& scale, DType dtype);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_RESIDUAL_RESIDUAL_H_
