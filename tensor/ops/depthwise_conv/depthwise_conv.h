// Depthwise 3x3 convolution, stride 1, zero padding 1, channels last: the positional convolution of
// DaViT when its input is added to the result.
#ifndef TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_H_
#define TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_H_

#include <cstdint>

#include "tensor/ops/depthwise_conv/depthwise_conv_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// y = conv(x), or x + conv(x) when `residual`: x [B, H, W, C] f32 or bf16, weight f32 [C, 1, 3, 3],
// bias f32 [C] or undefined; y of x's shape and dtype.
Tensor DepthwiseConv(const Tensor& x, const Tensor& weight, const Tensor& bias, bool residual);
// Gradient of the above with respect to x: dy and dx [B, H, W, C] of one dtype; written to (or
// added to) dx.
void DepthwiseConvGradInput(const Tensor& dy, const Tensor& weight, bool residual, const Tensor& dx,
                            bool accumulate);

// Where the gradients of the parameters go; undefined tensors are not wanted.
struct DepthwiseConvGradients {
  Tensor dweight;  // f32 [C, 1, 3, 3]
  Tensor dbias;    // f32 [C]
  bool accumulate_dweight = false;
  bool accumulate_dbias = false;
};
void DepthwiseConvGradWeight(const Tensor& dy, const Tensor& x,
                             const DepthwiseConvGradients& gradients);

}  // namespace ops
}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_H_
