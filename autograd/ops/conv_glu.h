// A gated linear unit whose activated half is convolved, as one differentiable op.
#ifndef TESSERA_AUTOGRAD_OPS_CONV_GLU_H_
#define TESSERA_AUTOGRAD_OPS_CONV_GLU_H_

#include "tensor/tensor.h"

namespace tessera {

// f32 weights and biases of the depthwise convolution 3x3 with padding 1: [hidden, 1, 3, 3] and
// [hidden].
struct DepthwiseWeights {
  const Tensor& weight;
  const Tensor& bias;
};

// [a | g] = x w1^T + b1, then (GELU(dwconv(a)) g) w2^T + b2 (Shi, arXiv 2311.17132): x [B, H, W,
// in], w1 [2 hidden, in] and w2 [out, hidden] of x's dtype, f32 or bf16; b1 and b2 f32; the result
// [B, H, W, out] of x's dtype.
//
// Of the four hidden maps it keeps a and g; the others are made again in the backward pass, where
// every gradient takes the place of a map that is done with.
Tensor ConvGlu(const Tensor& x, const Tensor& w1, const Tensor& b1, const DepthwiseWeights& dwconv,
               const Tensor& w2, const Tensor& b2);

}  // namespace tessera

#endif  // TESSERA_AUTOGRAD_OPS_CONV_GLU_H_
