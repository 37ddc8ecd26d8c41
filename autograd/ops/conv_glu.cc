#include "autograd/ops/conv_glu.h"

#include "autograd/tape.h"
#include "tensor/ops/column_sum/column_sum.h"
#include "tensor/ops/depthwise_conv/depthwise_conv.h"
#include "tensor/ops/gelu_gate/gelu_gate.h"
#include "tensor/ops/matmul/matmul.h"

namespace tessera {
namespace {

// Inputs of the node, in order.
enum Input { kX, kW1, kB1, kConvWeight, kConvBias, kW2, kB2 };

// The rows of w1, b1 and their gradients that belong to the half that is convolved, or to the gate.
Tensor Half(const Tensor& t, int half) {
  const int64_t rows = t.dim(0) / 2;
  return t.Slice(half * rows, (half + 1) * rows);
}

constexpr Conv2dGeometry kGeometry = {1, 1, 1, 1, 1};

Tensor Convolve(const Tensor& a, const Tensor& weight, const Tensor& bias) {
  return ops::DepthwiseConv(a, weight, bias, kGeometry, /*residual=*/false);
}

void ConvolutionGradients(const GradContext& g, const Tensor& d_conv, const Tensor& a) {
  ops::DepthwiseConvGradients to;
  if (g.wants(kConvWeight)) {
    const GradDest dest = g.Dest(kConvWeight);
    to.dweight = dest.tensor;
    to.accumulate_dweight = dest.accumulate;
  }
  if (g.wants(kConvBias)) {
    const GradDest dest = g.Dest(kConvBias);
    to.dbias = dest.tensor;
    to.accumulate_dbias = dest.accumulate;
  }
  if (g.wants(kConvWeight) || g.wants(kConvBias)) {
    ops::DepthwiseConvGradWeight(d_conv, a, /*kernel_size=*/3, kGeometry, to);
  }
}

// Gradients of x, w1 and b1 from those of both halves.
void FirstLayerGradients(const GradContext& g, const Tensor (&d_halves)[2], const Tensor& x,
                         const Tensor& w1) {
  if (g.wants(kB1)) {
    const GradDest db = g.Dest(kB1);
    for (const int i : {0, 1}) ops::ColumnSum(d_halves[i], Half(db.tensor, i), db.accumulate);
  }
  if (g.wants(kW1)) {
    const GradDest dw = g.Dest(kW1);
    for (const int i : {0, 1}) {
      ops::LinearGradWeight(d_halves[i], x, Half(dw.tensor, i), dw.accumulate);
    }
  }
  if (g.wants(kX)) {
    const GradDest dx = g.Dest(kX);
    for (const int i : {0, 1}) {
      ops::LinearGradInput(d_halves[i], Half(w1, i), dx.tensor, dx.accumulate || i > 0);
    }
  }
}

}  // namespace

Tensor ConvGlu(const Tensor& x, const Tensor& w1, const Tensor& b1, const DepthwiseWeights& dwconv,
               const Tensor& w2, const Tensor& b2) {
  const Tensor a = ops::Linear(x, Half(w1, 0), Half(b1, 0), x.dtype());
  const Tensor gate = ops::Linear(x, Half(w1, 1), Half(b1, 1), x.dtype());
  const Tensor hidden = Convolve(a, dwconv.weight, dwconv.bias);
  ops::GeluGateTo(hidden, gate, hidden);
  Tensor y = ops::Linear(hidden, w2, b2, x.dtype());
  Record("conv_glu", {&x, &w1, &b1, &dwconv.weight, &dwconv.bias, &w2, &b2}, {&y},
         [x = x.Detach(), w1 = w1.Detach(), conv_weight = dwconv.weight.Detach(),
          conv_bias = dwconv.bias.Detach(), w2 = w2.Detach(), a, gate](GradContext& g) {
           const Tensor dy = g.out();
           if (g.wants(kB2)) {
             const GradDest db2 = g.Dest(kB2);
             ops::ColumnSum(dy, db2.tensor, db2.accumulate);
           }
           const Tensor conv = Convolve(a, conv_weight, conv_bias);
           const Tensor hidden = Tensor::Empty(a.shape(), a.dtype(), a.device());
           ops::LinearGradInput(dy, w2, hidden, /*accumulate=*/false);
           // From here on `conv` and `gate` are their gradients, and `hidden` is w2's operand.
           ops::GeluGateBackwardInPlace(hidden, conv, gate);
           if (g.wants(kW2)) {
             const GradDest dw2 = g.Dest(kW2);
             ops::LinearGradWeight(dy, hidden, dw2.tensor, dw2.accumulate);
           }
           ConvolutionGradients(g, conv, a);
           const Tensor& d_a = hidden;
           ops::DepthwiseConvGradInput(conv, conv_weight, kGeometry, /*residual=*/false, d_a,
                                       /*accumulate=*/false);
           FirstLayerGradients(g, {d_a, gate}, x, w1);
         });
  return y;
}

}  // namespace tessera
