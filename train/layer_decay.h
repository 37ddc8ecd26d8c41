// A learning rate that decays from the head to the stem, for fine-tuning (Clark et al., ELECTRA,
// arXiv 2003.10555; as timm's layer_decay).
#ifndef TESSERA_TRAIN_LAYER_DECAY_H_
#define TESSERA_TRAIN_LAYER_DECAY_H_

#include <vector>

#include "absl/status/statusor.h"
#include "models/image_model.h"

namespace tessera::train {

// A factor for each of the store's entries: decay^(L - 1 - l) for a parameter of the model's l-th
// of L layers, see ImageModel::LayerOf. ConfigError if the model has no order of layers and decay
// is not 1.
absl::StatusOr<std::vector<float>> LayerScales(const ImageModel& model, const ParameterStore& store,
                                               double decay);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_LAYER_DECAY_H_
