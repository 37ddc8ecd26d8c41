// A model with its weights as an ONNX file: input "images" f32 [batch, in_chans, H, W], normalised
// as in training, any batch; output "logits" f32 [batch, num_classes].
#ifndef TESSERA_MODELS_ONNX_EXPORT_H_
#define TESSERA_MODELS_ONNX_EXPORT_H_

#include <string>

#include "absl/status/statusor.h"
#include "layers/module.h"
#include "models/image_model.h"

namespace tessera {

// The bytes of the file, for images of this size.
absl::StatusOr<std::string> ExportOnnx(const ImageModel& model, absl::string_view name,
                                       const ParameterStore& store, int64_t height, int64_t width);

}  // namespace tessera

#endif  // TESSERA_MODELS_ONNX_EXPORT_H_
