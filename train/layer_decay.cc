#include "train/layer_decay.h"

#include <cmath>
#include <map>
#include <optional>

#include "core/status.h"

namespace tessera::train {

absl::StatusOr<std::vector<float>> LayerScales(const ImageModel& model, const ParameterStore& store,
                                               double decay) {
  std::vector<float> scales(store.entries().size(), 1.0f);
  if (decay == 1.0) return scales;
  std::map<int64_t, double> scale_of_layer;
  for (const ParameterStore::Entry& entry : store.entries()) {
    const std::optional<int64_t> layer = model.LayerOf(entry.name);
    if (!layer) {
      return ConfigError("optim.layer_decay: this family of models has no order of its layers");
    }
    scale_of_layer[*layer] = 1.0;
  }
  double scale = 1.0;
  for (auto layer = scale_of_layer.rbegin(); layer != scale_of_layer.rend(); ++layer) {
    layer->second = scale;
    scale *= decay;
  }
  for (size_t i = 0; i < scales.size(); ++i) {
    scales[i] = static_cast<float>(scale_of_layer[*model.LayerOf(store.entries()[i].name)]);
  }
  return scales;
}

}  // namespace tessera::train
