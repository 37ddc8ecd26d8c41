// From a configuration or a checkpoint to a model with weights.
#ifndef TESSERA_TRAIN_MODEL_SETUP_H_
#define TESSERA_TRAIN_MODEL_SETUP_H_

#include <memory>
#include <string>
#include <vector>

#include "models/image_model.h"
#include "train/config.h"
#include "train/weights.h"

namespace tessera::train {

DType ComputeDType(const TrainConfig& config);

// `argument` is the path of a YAML file, or the name of a registered model, which stands for the
// defaults with that model at its own image size.
absl::StatusOr<RunConfig> ConfigOfModelArgument(const std::string& argument,
                                                const std::vector<std::string>& overrides);

// The device that a configuration asks for; ConfigError when this build or machine can not use it.
absl::StatusOr<Device> OpenDevice(const TrainConfig& config);

// The model that `model:` of a configuration describes: its name, and options that change the
// variant's. Without a num_classes option it gets `default_classes`, unless that is 0.
absl::StatusOr<std::unique_ptr<ImageModel>> BuildModel(const ConfigNode& model,
                                                       int64_t default_classes);

// `model:` with every option of the model that was built from it.
ConfigNode ResolvedModel(const ConfigNode& model, const ImageModel& built);

// A model ready to be evaluated.
struct LoadedModel {
  RunConfig config;
  std::vector<std::string> class_names;  // empty where the weights do not come with them
  std::unique_ptr<ImageModel> model;
  // Holds the averaged weights where there are some; on the device of the configuration.
  std::unique_ptr<ParameterStore> store;
  DType compute_dtype = DType::kF32;
  LoadReport report;
};

// `weights` is a checkpoint of a run, which brings its own configuration, or a file of safetensors
// or of torch.save, for which `config` must name one, or just a model. Overrides apply to either.
// With `finetune`, the classifier need not be in the file.
absl::StatusOr<LoadedModel> LoadModel(const std::string& weights, const std::string& config,
                                      const std::vector<std::string>& overrides,
                                      bool finetune = false);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_MODEL_SETUP_H_
