#include "models/image_model.h"

namespace tessera {

absl::StatusOr<OnnxValue> ImageModel::ToOnnx(OnnxGraph&, const OnnxValue&) const {
  return absl::UnimplementedError("this family of models can not be written as ONNX yet");
}

std::optional<int64_t> ImageModel::LayerOf(absl::string_view) const { return std::nullopt; }

}  // namespace tessera
