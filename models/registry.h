// The models that this build knows, by name. A family registers its variants from its own file:
//   static const bool registered = RegisterModels(DaVitVariants());
#ifndef TESSERA_MODELS_REGISTRY_H_
#define TESSERA_MODELS_REGISTRY_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/status.h"
#include "models/image_model.h"
#include "models/weight_names.h"

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
  // From the names in the authors' and other checkpoints to ours.
  std::vector<NameRule> weight_names;
  // The value of a parameter of shape `to` from a tensor of another shape (f32) that a checkpoint
  // has under its name, such as a position table of another resolution; nothing where the
  // parameter does not allow it. May be null.
  std::function<std::optional<Tensor>(absl::string_view name, const Tensor& from, const Shape& to)>
      resize_weight;
};

bool RegisterModels(std::vector<ModelVariant> variants);

// In the order of registration within a family, families by name.
std::vector<const ModelVariant*> AllModels();
// ConfigError with the nearest name.
absl::StatusOr<const ModelVariant*> FindModel(absl::string_view name);

}  // namespace tessera

#endif  // TESSERA_MODELS_REGISTRY_H_
