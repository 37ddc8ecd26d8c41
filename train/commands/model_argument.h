// The argument of commands that take a configuration file or just the name of a model.
#ifndef TESSERA_TRAIN_COMMANDS_MODEL_ARGUMENT_H_
#define TESSERA_TRAIN_COMMANDS_MODEL_ARGUMENT_H_

#include <string>
#include <vector>

#include "train/config.h"

namespace tessera::train {

// `argument` is the path of a YAML file, or the name of a registered model, which stands for the
// defaults with that model at its own image size.
absl::StatusOr<RunConfig> ConfigOfModelArgument(const std::string& argument,
                                                const std::vector<std::string>& overrides);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_COMMANDS_MODEL_ARGUMENT_H_
