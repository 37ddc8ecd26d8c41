// Layers that are one product: Linear and Conv2d. The weight is used in the dtype of the input.
#ifndef TESSERA_LAYERS_LINEAR_H_
#define TESSERA_LAYERS_LINEAR_H_

#include "autograd/ops/conv2d.h"
#include "layers/module.h"

namespace tessera::layers {

// y = x weight^T + bias. Parameters: weight [out, in], or [out, in, 1, 1] for a convolution 1x1,
// and bias [out].
class Linear : public Module {
 public:
  struct Options {
    bool bias = true;
    bool pointwise = false;  // a convolution 1x1
    Init weight_init = Init::TruncatedNormal(0.02);
    Init bias_init = Init::Zeros();
  };
  Linear(int64_t in_features, int64_t out_features)
      : Linear(in_features, out_features, Options()) {}
  Linear(int64_t in_features, int64_t out_features, const Options& options);
  // x [..., in] f32 or bf16 -> [..., out] of `out_dtype`.
  Tensor Forward(const Tensor& x, DType out_dtype) const {
    return Forward(x, out_dtype, x.dtype());
  }
  // The same with the products of the backward pass in `backward_dtype`.
  Tensor Forward(const Tensor& x, DType out_dtype, DType backward_dtype) const;
  // For ops that do the product themselves, or pad with the bias (undefined if there is none): the
  // weight as [out, in].
  Tensor weight(DType dtype) const;
  const Tensor& bias() const;

 private:
  Parameter& weight_;
  Parameter* bias_ = nullptr;
};

// Dense convolution, channels last. Parameters: weight [out, in, k, k] and bias [out]; both uniform
// within 1 / sqrt(in * k * k) unless `options` say otherwise.
class Conv2d : public Module {
 public:
  struct Options {
    bool bias = true;
    Init weight_init;
    Init bias_init;
  };
  Conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel_size);
  Conv2d(int64_t in_channels, int64_t out_channels, int64_t kernel_size, const Options& options);
  // x [B, H, W, in] f32 or bf16 -> [B, OH, OW, out] of `out_dtype`.
  Tensor Forward(const Tensor& x, const Conv2dGeometry& geometry, DType out_dtype) const;

 private:
  Parameter& weight_;
  Parameter* bias_ = nullptr;
};

}  // namespace tessera::layers

#endif  // TESSERA_LAYERS_LINEAR_H_
