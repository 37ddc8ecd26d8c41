// What a run does about steps that were not taken, because their loss or gradient is not finite or,
// with train.skip_loss_above, because the loss is a spike.
//
// One is skipped: nothing changes but the place in the data. Ten in a row are a sign that the
// weights have gone astray: they go back to the newest checkpoint from before, and training goes on
// with the data behind the bad batches. If that was done less than an epoch, or 100 steps, ago, or
// there is no checkpoint, the run ends with an error that names the operation where the first such
// number came from.
#ifndef TESSERA_TRAIN_BAD_STEPS_H_
#define TESSERA_TRAIN_BAD_STEPS_H_

#include <cstdint>
#include <string>

#include "data/loader.h"
#include "train/checkpoint.h"
#include "train/step.h"

namespace tessera::train {

inline constexpr int64_t kMaxSkippedInARow = 10;

// What a roll back changes, and what the search for an operation needs.
struct RunParts {
  FileSystem& fs;
  const std::string& run_dir;
  const ImageModel& model;
  ParameterStore& store;
  Optimizer& optimizer;
  const StepOptions& options;
  int64_t steps_per_epoch;
};

// The largest loss that is no spike: `factor` times the running average of the loss over updates.
// Infinite with factor 0 and before the first update.
double MaxLoss(double factor, const TrainState& state);

// To be called after each step, which state->step counts already: keeps the books of updates and
// skipped steps, warns of a skipped one, rolls back. NumericError when the run is to end.
absl::Status FollowStep(const RunParts& run, const StepResult& result, const Batch& batch,
                        TrainState* state);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_BAD_STEPS_H_
