// From a configuration or a checkpoint to a model with weights.
#ifndef TESSERA_TRAIN_MODEL_SETUP_H_
#define TESSERA_TRAIN_MODEL_SETUP_H_

#include <memory>
#include <string>
#include <vector>

#include "models/image_model.h"
#include "train/config.h"

namespace tessera::train {

DType ComputeDType(const TrainConfig& config);

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
  std::unique_ptr<ParameterStore> store;  // holds the averaged weights where there are some
  DType compute_dtype = DType::kF32;
};

// `weights` is a checkpoint of a run, which brings its own configuration, or a safetensors file,
// for which `config_path` must name one. Overrides apply to either.
absl::StatusOr<LoadedModel> LoadModel(const std::string& weights, const std::string& config_path,
                                      const std::vector<std::string>& overrides);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_MODEL_SETUP_H_
