// The subcommands of the program: each adds itself, with its flags, to the command line and leaves
// its status in `*result` when it was chosen.
#ifndef TESSERA_TRAIN_COMMANDS_COMMANDS_H_
#define TESSERA_TRAIN_COMMANDS_COMMANDS_H_

#include <CLI/CLI.hpp>

#include "absl/status/status.h"

namespace tessera::train {

void AddTrainCommand(CLI::App& app, absl::Status* result);
void AddEvalCommand(CLI::App& app, absl::Status* result);
void AddPredictCommand(CLI::App& app, absl::Status* result);
void AddExportCommand(CLI::App& app, absl::Status* result);
void AddImportCommand(CLI::App& app, absl::Status* result);
void AddModelsCommand(CLI::App& app, absl::Status* result);
void AddSummaryCommand(CLI::App& app, absl::Status* result);
void AddBenchCommand(CLI::App& app, absl::Status* result);
void AddDataCommand(CLI::App& app, absl::Status* result);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_COMMANDS_COMMANDS_H_
