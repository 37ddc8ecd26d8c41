// How much memory a training step needs, and whether the machine has it.
#ifndef TESSERA_TRAIN_MEMORY_H_
#define TESSERA_TRAIN_MEMORY_H_

#include <cstdint>
#include <string>

#include "models/image_model.h"
#include "train/config.h"

namespace tessera::train {

// What holds memory in a step, in bytes.
struct StepMemory {
  double parameters = 0;   // values, and their copies for products
  double gradients = 0;    // of all parameters
  double optimizer = 0;    // moments and averages
  double activations = 0;  // of one part of a batch, kept for the backward pass
  double workspace = 0;    // of one operation and its gradients, the largest
  double images = 0;       // batches: the one in use and those loaded ahead

  double model() const { return parameters + gradients + optimizer; }
  double total() const { return model() + activations + workspace + images; }
  std::string ToTable() const;  // one line for each, indented
};

// What a step of this run keeps, from the model's table of costs. With train.checkpoint_blocks the
// activations are what is left at least: the inputs of the blocks and the inside of one.
StepMemory EstimateStepMemory(const ImageModel& model, const RunConfig& config);

// Memory of a device that this process may still take; on the CPU what the system has available, or
// what is left of the limit of its control group.
double AvailableMemory(Device device);

// MemoryError with a table of what holds memory and settings that would fit when the step needs
// more than `available` on the device, so that a run ends with a message before it starts and not
// by force within it.
absl::Status CheckMemory(const ImageModel& model, const RunConfig& config, double available);

// From now on a process that gets no memory from the system ends with exit code 4, the size that
// was asked for, and the table and suggestions of the last CheckMemory. What is on disk stays
// whole.
void ExitWhenOutOfMemory();

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_MEMORY_H_
