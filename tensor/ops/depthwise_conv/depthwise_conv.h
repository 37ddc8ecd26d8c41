// Depthwise convolution, channels last: one K x K kernel per channel, K = 3, 5 or 7, stride 1 or 2.
// With its input added to the result it is a positional encoding.
#ifndef TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_H_
#define TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_H_

#include <cstdint>

#include "tensor/ops/depthwise_conv/depthwise_conv_kernel.h"
#include "tensor/tensor.h"

namespace tessera {
namespace ops {

// y = conv(x) + bias, or x + conv(x) + bias when `residual`, which takes stride 1 and padding K /
// 2: x [B, H, W, C] f32 or bf16, weight f32 [C, 1, K, K], bias f32 [C] or undefined; y [B, OH, OW,
// C] of x's dtype.
Tensor DepthwiseConv(const Tensor& x, const Tensor& weight, const Tensor& bias,
                     const Conv2dGeometry& geometry, bool residual);
// Gradient of the above with respect to x: dy [B, OH, OW, C] and dx [B, H, W, C] of one dtype;
// written to (or added to) dx.
void DepthwiseConvGradInput(const Tensor& dy, const Tensor& weight, const Conv2dGeometry& geometry,
                            bool residual, const Tensor& dx, bool accumulate);

// Where the gradients of the parameters go; undefined tensors are not wanted.
struct DepthwiseConvGradients {
  Tensor dweight;  // f32 [C, 1, K, K]
  Tensor dbias;    // f32 [C]
  bool accumulate_dweight = false;
  bool accumulate_dbias = false;
};
void DepthwiseConvGradWeight(const Tensor& dy, const Tensor& x, int64_t kernel_size,
                             const Conv2dGeometry& geometry,
                             const DepthwiseConvGradients& gradients);

}  // namespace ops

// Sizes of a convolution of maps [B, H, W, C]; CHECKs that kernel and geometry are possible.
DepthwiseConvShape DepthwiseConvShapeOf(const Shape& x, int64_t kernel_size,
                                        const Conv2dGeometry& geometry);

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_DEPTHWISE_CONV_DEPTHWISE_CONV_H_
