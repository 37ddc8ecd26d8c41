#include "models/onnx/export.h"
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
  std::string onnx;
  int64_t image_size = 0;
};

absl::Status WriteSafetensorsFile(const Options& options, const LoadedModel& loaded,
                                  const std::string& name) {
  RETURN_IF_ERROR(ExportSafetensors(PosixFileSystem(), options.out, *loaded.store,
                                    {{"format", "pt"}, {"model", name}}));
  absl::PrintF("%s: %s, %d tensors, %d parameters\n", options.out, name,
               StateOf(*loaded.store, loaded.store->values()).size(),
               loaded.store->num_parameters());
  return absl::OkStatus();
}

absl::Status WriteOnnxFile(const Options& options, const LoadedModel& loaded,
                           const std::string& name) {
  const int64_t size = options.image_size > 0 ? options.image_size : loaded.config.data.image_size;
  ASSIGN_OR_RETURN(const std::string bytes,
                   ExportOnnx(*loaded.model, name, *loaded.store, size, size));
  RETURN_IF_ERROR(WriteFileAtomically(PosixFileSystem(), options.onnx, bytes));
  absl::PrintF("%s: %s, images [batch, %d, %d, %d] -> logits [batch, %d]\n", options.onnx, name,
               loaded.model->in_chans(), size, size, loaded.model->num_classes());
  return absl::OkStatus();
}

absl::Status RunExport(const Options& options) {
  if (options.out.empty() && options.onnx.empty()) {
    return ConfigError("export: name a safetensors file to write, or an ONNX file with --onnx");
  }
  ASSIGN_OR_RETURN(const LoadedModel loaded,
                   LoadModel(options.weights, options.config, {"train.device=cpu"}));
  const std::string name = loaded.config.model.Find("name")->scalar;
  if (!options.out.empty()) RETURN_IF_ERROR(WriteSafetensorsFile(options, loaded, name));
  return options.onnx.empty() ? absl::OkStatus() : WriteOnnxFile(options, loaded, name);
}

}  // namespace

void AddExportCommand(CLI::App& app, absl::Status* result) {
  CLI::App* command = app.add_subcommand(
      "export", "Writes weights as a safetensors file that timm loads, or the model as ONNX");
  auto options = std::make_shared<Options>();
  command->add_option("weights", options->weights, "checkpoint of a run, safetensors or .pth file")
      ->required();
  command->add_option("out", options->out, "file to write, as in model.safetensors");
  command->add_option("--onnx", options->onnx, "also, or only, write this ONNX file (opset 17)");
  command->add_option("--image-size", options->image_size, "of the ONNX file, instead of the run's")
      ->check(CLI::Range(1, 16384));
  command->add_option("--config", options->config,
                      "configuration or model, needed for files of weights alone");
  command->callback([options, result] { *result = RunExport(*options); });
}

}  // namespace tessera::train
