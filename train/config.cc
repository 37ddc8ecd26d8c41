#include "train/config.h"

namespace tessera::train {

absl::Status CheckConfig(const RunConfig& config) {
  const auto error = [](absl::string_view key, const std::string& what) {
    return ConfigError(absl::StrCat(key, ": ", what));
  };
  if (config.output.empty()) return error("output", "found nothing, expected the run's folder");
  if (config.optim.betas.size() != 2) {
    return error("optim.betas", absl::StrCat("found ", config.optim.betas.size(),
                                             " numbers, expected two, as in [0.9, 0.999]"));
  }
  if (config.optim.name == "sgd" && config.optim.nesterov && config.optim.momentum == 0) {
    return error("optim.nesterov", "needs momentum, which is 0; expected false");
  }
  const TrainConfig& train = config.train;
  if (train.batch_size % train.accumulate != 0) {
    return error("train.accumulate",
                 absl::StrCat(train.accumulate, " does not divide train.batch_size, which is ",
                              train.batch_size));
  }
  if (train.finetune && train.init_weights.empty()) {
    return error("train.finetune", "needs train.init_weights, which is not set");
  }
  return absl::OkStatus();
}

}  // namespace tessera::train
