#include "tests/golden/golden_model.h"

#include "absl/strings/match.h"
#include "core/status.h"
#include "models/registry.h"
#include "tensor/ops/cast/cast.h"
#include "tests/golden/fill.h"
#include "tests/golden/golden_family.h"
#include "train/weights.h"

namespace tessera {

absl::StatusOr<std::unique_ptr<ImageModel>> MakeGoldenModel(const Json& meta) {
  const Json variant = meta.value("variant", Json());
  const std::string name =
      variant.is_string() ? variant.get<std::string>() : meta.at("family").get<std::string>();
  ASSIGN_OR_RETURN(const ModelVariant* model, FindModel(name));
  const GoldenFamily& family = FindGoldenFamily(meta.at("family"));
  Json options =
      family.options != nullptr ? family.options(meta) : meta.value("config", Json::object());
  options.erase("timm_variant");
  if (meta.contains("num_classes") && !options.contains("num_classes")) {
    // It counts the labels too, of models without a classifier.
    const bool has_classifier =
        !meta.contains("state_dict") || meta["state_dict"].contains("head.fc.weight");
    options["num_classes"] = has_classifier ? meta["num_classes"] : Json(0);
  }
  // YAML contains JSON.
  ASSIGN_OR_RETURN(const ConfigNode node, ParseYaml(options.dump(), "config"));
  return model->create(node);
}

void FillParameters(const Json& meta, ParameterStore& store) {
  const Json scales = meta.value("fill_scale", Json::object());
  for (const auto& [name, tensor] : train::StateOf(store, store.values())) {
    if (tensor.dtype() != DType::kF32) continue;
    float factor = 1.0f;
    for (const auto& [suffix, value] : scales.items()) {
      if (absl::EndsWith(name, suffix)) factor *= value.get<float>();
    }
    FillParameter(name, tensor.shape(), factor, tensor.data<float>());
  }
  store.RefreshCopies();
}

Tensor GoldenImages(const std::string& name, const std::vector<int64_t>& nchw) {
  const int64_t B = nchw.at(0), C = nchw.at(1), pixels = nchw.at(2) * nchw.at(3);
  std::vector<float> planar(B * C * pixels);
  FillInput(name, static_cast<int64_t>(planar.size()), planar.data());
  const Tensor images = Tensor::Empty({B, nchw[2], nchw[3], C}, DType::kF32);
  float* to = images.data<float>();
  for (int64_t b = 0; b < B; ++b)
    for (int64_t c = 0; c < C; ++c)
      for (int64_t p = 0; p < pixels; ++p)
        to[(b * pixels + p) * C + c] = planar[(b * C + c) * pixels + p];
  return images;
}

}  // namespace tessera
