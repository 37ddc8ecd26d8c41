// The optimizer of a ParameterStore: one sweep over its flat buffers updates the parameters, their
// bf16 copies, the moments and the averaged weights.
#ifndef TESSERA_TRAIN_OPTIMIZER_H_
#define TESSERA_TRAIN_OPTIMIZER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "layers/module.h"
#include "tensor/ops/optimizer/optimizer.h"
#include "train/config.h"

namespace tessera::train {

// AdamW (Loshchilov and Hutter, arXiv 1711.05101) or SGD with momentum, as PyTorch defines them;
// weight decay acts on parameters of two or more dimensions, unless their names hold an entry of
// config.no_weight_decay. With ema_decay > 0 it also keeps
// averages of the parameters and of f32 buffers, ema = ema_decay * ema + (1 - ema_decay) * value
// after each step, which start as a copy.
class Optimizer {
 public:
  // `store` must outlive the optimizer; averages start from the values that it holds now. The
  // learning rate of each of the store's entries is times its `lr_scales`, if there are any.
  Optimizer(const OptimConfig& config, ParameterStore& store, double ema_decay,
            const std::vector<float>& lr_scales = {});

  // Global L2 norm of the store's gradients, summed in double.
  double GradNorm() const;
  // One update with the store's gradients times `grad_scale`.
  void Step(double lr, double grad_scale);

  // Steps done; part of the state that a checkpoint keeps, as AdamW's bias correction counts them.
  int64_t num_steps() const { return num_steps_; }
  void set_num_steps(int64_t n) { num_steps_ = n; }
  // The flat moments by PyTorch's names: exp_avg and exp_avg_sq, or momentum_buffer. Each is laid
  // out like the store's gradients.
  struct Moment {
    std::string name;
    Tensor values;
  };
  const std::vector<Moment>& moments() const { return moments_; }
  // The averaged weights, in the layout of the store's values; undefined without averaging.
  const Tensor& averages() const { return averages_; }
  // Starts the averages again from the store's values, after weights were loaded.
  void ResetAverages();

 private:
  void AverageBuffers();

  OptimConfig config_;
  ParameterStore& store_;
  double ema_decay_;
  std::vector<ParameterRange> ranges_;
  int64_t num_steps_ = 0;
  std::vector<Moment> moments_;
  Tensor averages_;
};

// ConfigError for an entry of config.no_weight_decay that no parameter's name holds.
absl::Status CheckNoWeightDecay(const OptimConfig& config, Module& model);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_OPTIMIZER_H_
