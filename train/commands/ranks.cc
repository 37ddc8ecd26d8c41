#include "core/check.h"
#include "train/commands/commands.h"

namespace tessera::train {

const Communicator& JoinRanks() {
  const Communicator& ranks = Communicator::World();
  if (!ranks.is_first()) FLAGS_minloglevel = google::WARNING;
  return ranks;
}

}  // namespace tessera::train
