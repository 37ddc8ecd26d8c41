#include "train/model_setup.h"

#include "absl/strings/match.h"
#include "core/device_runtime.h"
#include "models/registry.h"
#include "tensor/torch/torch_file.h"
#include "train/checkpoint.h"

namespace tessera::train {

DType ComputeDType(const TrainConfig& config) {
  return config.precision == "bf16" ? DType::kBF16 : DType::kF32;
}

absl::StatusOr<RunConfig> ConfigOfModelArgument(const std::string& argument,
                                                const std::vector<std::string>& overrides) {
  RunConfig config;
  if (absl::EndsWith(argument, ".yaml") || absl::EndsWith(argument, ".yml")) {
    RETURN_IF_ERROR(ReadConfigFile(argument, overrides, &config));
    return config;
  }
  ASSIGN_OR_RETURN(const ModelVariant* variant, FindModel(argument));
  ASSIGN_OR_RETURN(ConfigNode node,
                   ParseYaml(absl::StrCat("model: {name: ", argument,
                                          "}\ndata: {image_size: ", variant->image_size, "}\n"),
                             argument));
  for (const std::string& text : overrides) RETURN_IF_ERROR(ApplyOverride(text, &node));
  RETURN_IF_ERROR(ReadConfig(node, &config));
  return config;
}

absl::StatusOr<Device> OpenDevice(const TrainConfig& config) {
  const Device device = config.device == "cuda" ? Device::kCuda : Device::kCpu;
  if (!HasRuntime(device)) {
    return ConfigError(absl::StrCat("train.device: found ", config.device,
                                    ", but this program was built without CUDA; `cmake --preset "
                                    "cuda` builds it with, train.device=cpu does without"));
  }
  const std::string problem = RuntimeOf(device).Problem();
  if (!problem.empty()) {
    return ConfigError(absl::StrCat("train.device: found ", config.device, ", but ", problem,
                                    "; train.device=cpu needs no GPU"));
  }
  return device;
}

absl::StatusOr<std::unique_ptr<ImageModel>> BuildModel(const ConfigNode& model,
                                                       int64_t default_classes) {
  ConfigNode options = model;
  ASSIGN_OR_RETURN(const std::string name, options.TakeString("name"));
  absl::StatusOr<const ModelVariant*> variant = FindModel(name);
  if (!variant.ok()) {
    return Annotate(variant.status(), absl::StrCat(model.Find("name")->place, ": model.name"));
  }
  if (default_classes > 0 && options.Find("num_classes") == nullptr) {
    ASSIGN_OR_RETURN(ConfigNode classes,
                     ParseYaml(absl::StrCat("num_classes: ", default_classes), "data set"));
    MergeNode(std::move(classes), &options);
  }
  return (*variant)->create(options);
}

ConfigNode ResolvedModel(const ConfigNode& model, const ImageModel& built) {
  ConfigNode resolved = built.Options();
  resolved.entries.insert(resolved.entries.begin(), {"name", "", *model.Find("name")});
  return resolved;
}

absl::StatusOr<LoadedModel> LoadModel(const std::string& weights, const std::string& config,
                                      const std::vector<std::string>& overrides, bool finetune) {
  FileSystem& fs = PosixFileSystem();
  LoadedModel loaded;
  LoadOptions options = {.finetune = finetune};
  if (!config.empty()) {
    ASSIGN_OR_RETURN(loaded.config, ConfigOfModelArgument(config, overrides));
  } else if (absl::EndsWith(weights, ".safetensors") || HasTorchSuffix(weights)) {
    return ConfigError(absl::StrCat(
        weights,
        ": such a file does not say which model it is for; name a configuration or a model with "
        "--config"));
  } else {
    const std::string best = BestPath(weights);
    if (!fs.Exists(JoinPath(weights, "checksums")) && fs.Exists(best)) {
      return ConfigError(absl::StrCat(
          weights, ": found a run, expected one of its checkpoints: ", best, " is its best"));
    }
    ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(fs, weights));
    ASSIGN_OR_RETURN(ConfigNode node, ParseYaml(checkpoint.config(), weights + "/config.yaml"));
    for (const std::string& text : overrides) RETURN_IF_ERROR(ApplyOverride(text, &node));
    RETURN_IF_ERROR(ReadConfig(node, &loaded.config));
    loaded.class_names = checkpoint.state().class_names;
    options.ema = checkpoint.group("ema") != nullptr;
  }
  ASSIGN_OR_RETURN(const Device device, OpenDevice(loaded.config.train));
  ASSIGN_OR_RETURN(loaded.model, BuildModel(loaded.config.model, 0));
  ASSIGN_OR_RETURN(options.variant, FindModel(loaded.config.model.Find("name")->scalar));
  const int64_t size = loaded.config.data.image_size;
  RETURN_IF_ERROR(loaded.model->CheckImageSize(size, size));
  loaded.compute_dtype = ComputeDType(loaded.config.train);
  loaded.store = std::make_unique<ParameterStore>(*loaded.model, /*seed=*/0,
                                                  loaded.compute_dtype == DType::kBF16);
  ASSIGN_OR_RETURN(loaded.report, LoadWeights(fs, weights, *loaded.store, options));
  LOG(INFO) << weights << ": " << loaded.report.ToString();
  loaded.store->MoveTo(device);
  return loaded;
}

}  // namespace tessera::train
