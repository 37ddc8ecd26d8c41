// The models that this build knows, by name. A family registers its variants from its own file:
//   static const bool registered = RegisterModels(DaVitVariants());
#ifndef TESSERA_MODELS_REGISTRY_H_
#define TESSERA_MODELS_REGISTRY_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/status.h"
#include "models/image_model.h"

namespace tessera {

struct ModelVariant {
  std::string name;  // timm's name; the family's own name stands for freely sized models
  std::string family;
  int64_t image_size;  // of the reference figures
  std::string top1;    // published ImageNet-1K accuracy, or "-"
  // Describes the options for --help.
  std::function<std::string()> describe;
  // A model whose options are the variant's, changed by a map of options (or null).
  // ConfigError names the option that is wrong.
  std::function<absl::StatusOr<std::unique_ptr<ImageModel>>(const ConfigNode& options)> create;
};

bool RegisterModels(std::vector<ModelVariant> variants);

// In the order of registration within a family, families by name.
std::vector<const ModelVariant*> AllModels();
// ConfigError with the nearest name.
absl::StatusOr<const ModelVariant*> FindModel(absl::string_view name);

}  // namespace tessera

#endif  // TESSERA_MODELS_REGISTRY_H_
