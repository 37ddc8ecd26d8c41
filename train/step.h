// One optimizer step of a classifier.
#ifndef TESSERA_TRAIN_STEP_H_
#define TESSERA_TRAIN_STEP_H_

#include <limits>

#include "core/communicator.h"
#include "models/image_model.h"
#include "train/optimizer.h"

namespace tessera::train {

struct StepOptions {
  DType compute_dtype = DType::kF32;
  bool checkpoint_blocks = false;
  int64_t accumulate = 1;  // equal parts that a batch is cut into
  double clip_grad = 0.0;  // largest global L2 norm of the gradient; 0: no limit
  uint64_t seed = 0;       // of drop path and dropout
  // Those that each train on a part of the batch, as large as the others'.
  const Communicator* ranks = &Communicator::Alone();
};

struct StepResult {
  double loss = 0.0;       // mean over the batch of all ranks
  double grad_norm = 0.0;  // global L2 norm before clipping
  bool updated = false;    // otherwise the step changed nothing
};

// Forward and backward over images f32 [B, H, W, C] and targets f32 [B, K], on the store's device
// whatever theirs: leaves the gradients in the store and returns the loss, both of the batch of all
// ranks, of which rank r of R has samples r, r + R, ... B is a multiple of options.accumulate.
double ComputeGradients(const ImageModel& model, ParameterStore& store, const StepOptions& options,
                        const Tensor& images, const Tensor& targets, int64_t step);

// The same, then the optimizer's update with this learning rate. Without a finite loss of at most
// `max_loss` and a finite gradient there is no update: parameters, buffers, moments and
// averages keep their bits.
StepResult TrainStep(const ImageModel& model, ParameterStore& store, Optimizer& optimizer,
                     const StepOptions& options, const Tensor& images, const Tensor& targets,
                     int64_t step, double lr,
                     double max_loss = std::numeric_limits<double>::infinity());

// NumericError for a step that had to be taken and was not.
absl::Status CheckUpdated(const StepResult& result, int64_t step);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_STEP_H_
