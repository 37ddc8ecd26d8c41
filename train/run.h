// A training run: from a configuration to checkpoints, logs and a trained model.
#ifndef TESSERA_TRAIN_RUN_H_
#define TESSERA_TRAIN_RUN_H_

#include "train/config.h"

namespace tessera::train {

struct TrainFlags {
  bool resume = false;   // continue the newest checkpoint of config.output
  bool dry_run = false;  // check everything, take one step, write nothing
};

// Trains until the last epoch. The folder config.output gets
//   config.yaml, metrics.jsonl, tensorboard/   the resolved configuration and the logs
//   checkpoints/step_N/, best/                 the newest states, and that of the best accuracy
// A run that is resumed takes the very same steps as one that was never interrupted.
// Cancelled (exit code 75) when SIGINT or SIGTERM asked it to stop and its state was saved;
// AlreadyExists if the folder holds a run that was not to be resumed, or another process works on
// it.
absl::Status Train(const RunConfig& config, const TrainFlags& flags);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_RUN_H_
