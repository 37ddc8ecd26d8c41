// Finds the operation that a number that is not finite came from.
#ifndef TESSERA_TRAIN_FIND_NONFINITE_H_
#define TESSERA_TRAIN_FIND_NONFINITE_H_

#include <cstdint>
#include <string>

#include "layers/module.h"
#include "models/image_model.h"
#include "train/step.h"

namespace tessera::train {

// Runs the forward and backward pass of a step once more, without an update, and checks every
// tensor that it makes, in order; arguments as for TrainStep. Says which was the first not to be
// finite, as in
//   "operation 57, 'mlp' of stages.1.blocks.0.0.mlp.fc1.weight, in the forward pass"
// or "the images" or "head.fc.weight" when the step began with it; "" if there is none.
// Overwrites gradients and running statistics.
std::string FindNonFinite(const ImageModel& model, ParameterStore& store,
                          const StepOptions& options, const Tensor& images, const Tensor& targets,
                          int64_t step);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_FIND_NONFINITE_H_
