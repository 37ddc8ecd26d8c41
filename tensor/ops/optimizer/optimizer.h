// One step of an optimizer over flat buffers of parameters: a single sweep that reads each buffer
// once and also clips the gradient, writes the bf16 copy and updates the moving average.
#ifndef TESSERA_TENSOR_OPS_OPTIMIZER_OPTIMIZER_H_
#define TESSERA_TENSOR_OPS_OPTIMIZER_OPTIMIZER_H_

#include <cstdint>

#include "absl/types/span.h"
#include "tensor/ops/optimizer/optimizer_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// Flat buffers, all f32 [n] but bf16. Elements in no range are left as they are.
struct FlatParameters {
  Tensor values;
  Tensor grads;
  Tensor bf16;  // bf16 [n], gets a copy of the new values; or undefined
  Tensor ema;   // ema = ema_decay * ema + (1 - ema_decay) * new value; or undefined
  absl::Span<const ParameterRange> ranges;  // sorted, disjoint
};

struct AdamWOptions {
  double lr;
  int64_t step;  // from 1
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double grad_scale = 1.0;  // of all gradients, say for clipping
  double ema_decay = 0.0;
};

// Loshchilov and Hutter, arXiv 1711.05101, as PyTorch's AdamW: with g = grad_scale * grad,
//   m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
//   p = p (1 - lr weight_decay) - lr m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps)
void AdamW(const FlatParameters& parameters, const Tensor& m, const Tensor& v,
           const AdamWOptions& options);

struct SgdOptions {
  double lr;
  double momentum = 0.0;
  bool nesterov = false;
  double grad_scale = 1.0;
  double ema_decay = 0.0;
};

// As PyTorch's SGD without dampening: with g = grad_scale * grad + weight_decay p,
//   b = momentum b + g;  p = p - lr (g + momentum b if nesterov, else b)
// `momentum` holds b, zero before the first step; it may be undefined when options.momentum is 0.
void Sgd(const FlatParameters& parameters, const Tensor& momentum, const SgdOptions& options);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_OPTIMIZER_OPTIMIZER_H_
