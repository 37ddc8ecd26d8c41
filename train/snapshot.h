// The changing tensors of a run, to and from its checkpoints.
#ifndef TESSERA_TRAIN_SNAPSHOT_H_
#define TESSERA_TRAIN_SNAPSHOT_H_

#include <string>

#include "layers/module.h"
#include "train/checkpoint.h"
#include "train/optimizer.h"

namespace tessera::train {

// Saves a checkpoint with the groups model, optimizer and, with averages, ema. `config` is the
// resolved configuration in YAML.
absl::Status SaveSnapshot(FileSystem& fs, const std::string& path, const TrainState& state,
                          std::string config, const ParameterStore& store,
                          const Optimizer& optimizer);

// Fills the store and the optimizer from a checkpoint that SaveSnapshot has written for the same
// model and settings.
absl::Status LoadSnapshot(const Checkpoint& checkpoint, ParameterStore& store,
                          Optimizer& optimizer);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_SNAPSHOT_H_
