// Pictures of where a model looks.
#ifndef TESSERA_TRAIN_ATTENTION_PICTURE_H_
#define TESSERA_TRAIN_ATTENTION_PICTURE_H_

#include <string>
#include <utility>
#include <vector>

#include "data/image.h"
#include "models/image_model.h"

namespace tessera::train {

// One attention module's map [1, H, W] of mean 1, see attention/attention_map.h.
using NamedMap = std::pair<std::string, Tensor>;

// The maps of a model in forward order, for one image f32 [1, S, S, 3].
std::vector<NamedMap> AttentionMaps(const ImageModel& model, const Tensor& image,
                                    DType compute_dtype);

// A picture file (`extension` ".png" or ".jpg"): the photo, and once for each map the photo under
// its colours (dark: unseen, yellow: four times the mean and more) with the module's name.
std::string AttentionPicture(const ImageView& photo, const std::vector<NamedMap>& maps,
                             const std::string& extension);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_ATTENTION_PICTURE_H_
