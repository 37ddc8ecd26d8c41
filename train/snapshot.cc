#include "train/snapshot.h"

#include <utility>
#include <vector>

#include "core/status.h"
#include "train/weights.h"

namespace tessera::train {
namespace {

std::vector<NamedTensor> MomentSlices(const ParameterStore& store, const Optimizer& optimizer) {
  std::vector<NamedTensor> slices;
  for (const Optimizer::Moment& moment : optimizer.moments()) {
    for (NamedTensor& slice : SlicesOf(store, moment.values, moment.name + ".")) {
      slices.push_back(std::move(slice));
    }
  }
  return slices;
}

}  // namespace

absl::Status SaveSnapshot(FileSystem& fs, const std::string& path, const TrainState& state,
                          std::string config, const ParameterStore& store,
                          const Optimizer& optimizer) {
  CheckpointContents contents;
  contents.state = state;
  contents.config = std::move(config);
  contents.groups["model"] = StateOf(store, store.values());
  contents.groups["optimizer"] = MomentSlices(store, optimizer);
  if (optimizer.averages().defined()) {
    contents.groups["ema"] = StateOf(store, optimizer.averages());
  }
  return SaveCheckpoint(fs, path, contents);
}

absl::Status LoadSnapshot(const Checkpoint& checkpoint, ParameterStore& store,
                          Optimizer& optimizer) {
  RETURN_IF_ERROR(checkpoint.Read("model", StateOf(store, store.values())));
  RETURN_IF_ERROR(checkpoint.Read("optimizer", MomentSlices(store, optimizer)));
  if (optimizer.averages().defined()) {
    RETURN_IF_ERROR(checkpoint.Read("ema", StateOf(store, optimizer.averages())));
  }
  store.RefreshCopies();
  optimizer.set_num_steps(checkpoint.state().updates);
  return absl::OkStatus();
}

}  // namespace tessera::train
