// How much memory a training step needs, and whether the machine has it.
#ifndef TESSERA_TRAIN_MEMORY_H_
#define TESSERA_TRAIN_MEMORY_H_

#include <cstdint>

#include "models/image_model.h"
#include "train/config.h"

namespace tessera::train {

// In bytes.
struct StepMemory {
  double parameters = 0;   // values, gradients, moments, copies for products, averages
  double activations = 0;  // of one part of a batch, kept for the backward pass
  double images = 0;       // batches: the one in use and those loaded ahead
  double total() const { return parameters + activations + images; }
};

// What a step of this run keeps, from the model's table of costs. With train.checkpoint_blocks the
// activations are those without it, which are more than is needed.
StepMemory EstimateStepMemory(const ImageModel& model, const RunConfig& config);

// Memory of a device that this process may still take; on the CPU what the system has available, or
// what is left of the limit of its control group.
double AvailableMemory(Device device);

// MemoryError that says what would fit when the step needs more than `available` on the device, so
// that a run ends with a message before it starts and not by force within it.
absl::Status CheckMemory(const ImageModel& model, const RunConfig& config, double available);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_MEMORY_H_
