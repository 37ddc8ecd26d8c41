// Normalisation layers.
#ifndef TESSERA_LAYERS_NORM_H_
#define TESSERA_LAYERS_NORM_H_

#include "autograd/ops/batch_norm.h"
#include "layers/forward_context.h"
#include "layers/linear.h"
#include "layers/module.h"
#include "tensor/activation.h"

namespace tessera::layers {

// Layer norm over the last axis (Ba et al., arXiv 1607.06450). Parameters: weight [dim] (ones),
// bias [dim] (zeros).
class LayerNorm : public Module {
 public:
  explicit LayerNorm(int64_t dim, float eps = 1e-5f);
  // x [..., dim] f32 or bf16 -> the same shape, of `out_dtype`.
  Tensor Forward(const Tensor& x, DType out_dtype) const;

 private:
  Parameter& weight_;
  Parameter& bias_;
  float eps_;
};

// The weights of squeeze-excite (Hu et al., arXiv 1709.01507). Children: fc1 [reduced, dim, 1, 1]
// and fc2 [dim, reduced, 1, 1] with biases; normal with the fan-out's variance, and zeros.
class SqueezeExcite : public Module {
 public:
  SqueezeExcite(int64_t dim, int64_t reduced_dim);
  SqueezeExciteWeights weights() const;

 private:
  Linear& fc1_;
  Linear& fc2_;
};

// Batch norm (Ioffe and Szegedy, arXiv 1502.03167) over all axes but the last. Parameters: weight
// [dim] (ones), bias [dim] (zeros); buffers: running_mean [dim] (zeros), running_var [dim] (ones),
// num_batches_tracked [].
//
// In training it normalises with the statistics of the batch, of all ranks together, and moves the
// running ones, by each part of a batch that is cut into parts; else with the running ones.
class BatchNorm : public Module {
 public:
  struct Options {
    float eps = 1e-5f;
    double momentum = 0.1;  // weight of the batch in the running statistics
    bool frozen = false;    // in training, too, use the running statistics and leave them alone
  };
  BatchNorm(int64_t dim, const Options& options);
  // activation(norm(x)): x [..., dim] f32 or bf16 -> the same shape, of `out_dtype`.
  Tensor Forward(const Tensor& x, Activation activation, const ForwardContext& context,
                 DType out_dtype) const;
  // The same followed by squeeze-excite: x [B, H, W, dim].
  Tensor Forward(const Tensor& x, Activation activation, const SqueezeExcite& squeeze_excite,
                 const ForwardContext& context, DType out_dtype) const;

 private:
  // Options for one forward pass, which is counted if it moves the running statistics.
  BatchNormOptions Begin(Activation activation, const ForwardContext& context) const;

  Parameter& weight_;
  Parameter& bias_;
  Buffer& running_mean_;
  Buffer& running_var_;
  Buffer& num_batches_tracked_;
  Options options_;
};

}  // namespace tessera::layers

#endif  // TESSERA_LAYERS_NORM_H_
