#include "absl/strings/str_format.h"
#include "core/file_system.h"
#include "train/commands/commands.h"
#include "train/model_setup.h"
#include "train/weights.h"

namespace tessera::train {
namespace {

struct Options {
  std::string weights;
  std::string config;
  std::string out;
};

absl::Status RunExport(const Options& options) {
  ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(options.weights, options.config, {}));
  const std::string name = loaded.config.model.Find("name")->scalar;
  RETURN_IF_ERROR(ExportSafetensors(PosixFileSystem(), options.out, *loaded.store,
                                    {{"format", "pt"}, {"model", name}}));
  absl::PrintF("%s: %s, %d tensors, %d parameters\n", options.out, name,
               StateOf(*loaded.store, loaded.store->values()).size(),
               loaded.store->num_parameters());
  return absl::OkStatus();
}

}  // namespace

void AddExportCommand(CLI::App& app, absl::Status* result) {
  CLI::App* command =
      app.add_subcommand("export", "Writes weights as a safetensors file that timm loads");
  auto options = std::make_shared<Options>();
  command->add_option("weights", options->weights, "checkpoint of a run, safetensors or .pth file")
      ->required();
  command->add_option("out", options->out, "file to write, as in model.safetensors")->required();
  command->add_option("--config", options->config,
                      "configuration or model, needed for files of weights alone");
  command->callback([options, result] { *result = RunExport(*options); });
}

}  // namespace tessera::train
