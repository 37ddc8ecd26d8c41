#include "absl/strings/str_format.h"
#include "core/file_system.h"
#include "train/commands/commands.h"
#include "train/model_setup.h"
#include "train/weights.h"

namespace tessera::train {
namespace {

struct Options {
  std::string file;
  std::string out;
  std::string model;
  std::vector<std::string> overrides;
  bool finetune = false;
};

void PrintNames(const char* what, const std::vector<std::string>& names) {
  for (const std::string& name : names) absl::PrintF("  %s: %s\n", what, name);
}

absl::Status RunImport(const Options& options) {
  ASSIGN_OR_RETURN(const LoadedModel loaded,
                   LoadModel(options.file, options.model, options.overrides, options.finetune));
  const std::string name = loaded.config.model.Find("name")->scalar;
  RETURN_IF_ERROR(
      ExportSafetensors(PosixFileSystem(), options.out, *loaded.store, {{"model", name}}));
  const LoadReport& report = loaded.report;
  absl::PrintF("%s: %s, %s\n", options.out, name, report.ToString());
  PrintNames("resized", report.resized);
  PrintNames("left fresh", report.fresh);
  return absl::OkStatus();
}

}  // namespace

void AddImportCommand(CLI::App& app, absl::Status* result) {
  CLI::App* command = app.add_subcommand(
      "import", "Turns a checkpoint of PyTorch into a safetensors file with the model's names");
  auto options = std::make_shared<Options>();
  command->add_option("file", options->file, "file of torch.save or safetensors")->required();
  command->add_option("out", options->out, "file to write, as in model.safetensors")->required();
  command->add_option("--model", options->model, "model that the weights are for, or configuration")
      ->required();
  command->add_option("overrides", options->overrides, "changes to it, as in model.num_classes=10");
  command->add_flag("--finetune", options->finetune,
                    "the file may lack the classifier, or have another one");
  command->callback([options, result] { *result = RunImport(*options); });
}

}  // namespace tessera::train
