#include "train/model_setup.h"

#include "absl/strings/match.h"
#include "models/registry.h"
#include "train/checkpoint.h"
#include "train/weights.h"

namespace tessera::train {

DType ComputeDType(const TrainConfig& config) {
  return config.precision == "bf16" ? DType::kBF16 : DType::kF32;
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

absl::StatusOr<LoadedModel> LoadModel(const std::string& weights, const std::string& config_path,
                                      const std::vector<std::string>& overrides) {
  FileSystem& fs = PosixFileSystem();
  LoadedModel loaded;
  LoadOptions options;
  ConfigNode node;
  if (!config_path.empty()) {
    ASSIGN_OR_RETURN(node, LoadConfigNode(config_path, overrides));
  } else if (absl::EndsWith(weights, ".safetensors")) {
    return ConfigError(absl::StrCat(weights,
                                    ": a safetensors file does not say which model it is "
                                    "for; name a configuration with --config"));
  } else {
    const std::string best = BestPath(weights);
    if (!fs.Exists(JoinPath(weights, "checksums")) && fs.Exists(best)) {
      return ConfigError(absl::StrCat(
          weights, ": found a run, expected one of its checkpoints: ", best, " is its best"));
    }
    ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(fs, weights));
    ASSIGN_OR_RETURN(node, ParseYaml(checkpoint.config(), weights + "/config.yaml"));
    for (const std::string& text : overrides) RETURN_IF_ERROR(ApplyOverride(text, &node));
    loaded.class_names = checkpoint.state().class_names;
    options.ema = checkpoint.group("ema") != nullptr;
  }
  RETURN_IF_ERROR(ReadConfig(node, &loaded.config));
  ASSIGN_OR_RETURN(loaded.model, BuildModel(loaded.config.model, 0));
  loaded.compute_dtype = ComputeDType(loaded.config.train);
  loaded.store = std::make_unique<ParameterStore>(*loaded.model, /*seed=*/0,
                                                  loaded.compute_dtype == DType::kBF16);
  ASSIGN_OR_RETURN(const LoadReport report, LoadWeights(fs, weights, *loaded.store, options));
  LOG(INFO) << weights << ": " << report.ToString();
  return loaded;
}

}  // namespace tessera::train
