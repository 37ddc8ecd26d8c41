#include "layers/norm.h"

#include "autograd/ops/layer_norm.h"

namespace tessera::layers {

LayerNorm::LayerNorm(int64_t dim, float eps)
    : weight_(AddParameter("weight", {dim}, Init::Ones())),
      bias_(AddParameter("bias", {dim}, Init::Zeros())),
      eps_(eps) {}

Tensor LayerNorm::Forward(const Tensor& x, DType out_dtype) const {
  return tessera::LayerNorm(x, weight_.value(), bias_.value(), eps_, out_dtype);
}

BatchNorm::BatchNorm(int64_t dim, const Options& options)
    : weight_(AddParameter("weight", {dim}, Init::Ones())),
      bias_(AddParameter("bias", {dim}, Init::Zeros())),
      running_mean_(AddBuffer("running_mean", {dim}, DType::kF32, 0)),
      running_var_(AddBuffer("running_var", {dim}, DType::kF32, 1)),
      num_batches_tracked_(AddBuffer("num_batches_tracked", {}, DType::kI64, 0)),
      options_(options) {}

BatchNormOptions BatchNorm::Begin(Activation activation, const ForwardContext& context) const {
  const bool of_batch = context.training && !options_.frozen;
  const bool tracks = of_batch && !Tape::Recomputing();
  if (tracks) ++*num_batches_tracked_.value().data<int64_t>();
  return {.eps = options_.eps,
          .momentum = tracks ? options_.momentum : 0.0,
          .batch_statistics = of_batch,
          .activation = activation,
          .ranks = context.ranks};
}

Tensor BatchNorm::Forward(const Tensor& x, Activation activation, const ForwardContext& context,
                          DType out_dtype) const {
  return tessera::BatchNorm(x, weight_.value(), bias_.value(),
                            {running_mean_.value(), running_var_.value()},
                            Begin(activation, context), out_dtype);
}

Tensor BatchNorm::Forward(const Tensor& x, Activation activation,
                          const SqueezeExcite& squeeze_excite, const ForwardContext& context,
                          DType out_dtype) const {
  return BatchNormSqueezeExcite(x, weight_.value(), bias_.value(),
                                {running_mean_.value(), running_var_.value()},
                                Begin(activation, context), squeeze_excite.weights(), out_dtype);
}

SqueezeExcite::SqueezeExcite(int64_t dim, int64_t reduced_dim)
    : fc1_(AddChild<Linear>(
          "fc1", dim, reduced_dim,
          Linear::Options{.pointwise = true, .weight_init = Init::FanOutNormal(reduced_dim)})),
      fc2_(AddChild<Linear>(
          "fc2", reduced_dim, dim,
          Linear::Options{.pointwise = true, .weight_init = Init::FanOutNormal(dim)})) {}

SqueezeExciteWeights SqueezeExcite::weights() const {
  return {fc1_.weight(DType::kF32), fc1_.bias(), fc2_.weight(DType::kF32), fc2_.bias()};
}

}  // namespace tessera::layers
