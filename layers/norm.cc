#include "layers/norm.h"

#include "autograd/ops/batch_norm.h"
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

Tensor BatchNorm::Forward(const Tensor& x, Activation activation, const ForwardContext& context,
                          DType out_dtype) const {
  const bool of_batch = context.training && !options_.frozen;
  const bool tracks = of_batch && !Tape::Recomputing();
  if (tracks) ++*num_batches_tracked_.value().data<int64_t>();
  return tessera::BatchNorm(x, weight_.value(), bias_.value(),
                            {running_mean_.value(), running_var_.value()},
                            {.eps = options_.eps,
                             .momentum = tracks ? options_.momentum : 0.0,
                             .batch_statistics = of_batch,
                             .activation = activation},
                            out_dtype);
}

}  // namespace tessera::layers
