// Addition of a branch to the residual stream, with stochastic depth (Huang et al., arXiv
// 1603.09382).
#ifndef TESSERA_TENSOR_OPS_RESIDUAL_RESIDUAL_H_
#define TESSERA_TENSOR_OPS_RESIDUAL_RESIDUAL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/tensor.h"

namespace tessera {

struct AddResidualArgs {
  const float* x;      // [batch, n]
  const void* r;       // [batch, n]
  const float* scale;  // [batch], or null for 1
  float* y;            // [batch, n]; may be x or r
  int64_t batch;
  int64_t n;      // elements per sample
  DType r_dtype;  // f32 or bf16
};
extern KernelSlot<void(const AddResidualArgs&)> add_residual;

struct ScaleSamplesArgs {
  const float* x;      // [batch, n]
  const float* scale;  // [batch]
  void* y;             // [batch, n]; may be x
  int64_t batch;
  int64_t n;
  DType y_dtype;  // f32 or bf16
};
extern KernelSlot<void(const ScaleSamplesArgs&)> scale_samples;

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
