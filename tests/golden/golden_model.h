// Models and inputs of golden cases.
#ifndef TESSERA_TESTS_GOLDEN_GOLDEN_MODEL_H_
#define TESSERA_TESTS_GOLDEN_GOLDEN_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "models/image_model.h"

namespace tessera {

// The model that a case describes by `family`, `variant` and `config`. NotFound if the build does
// not have the family.
absl::StatusOr<std::unique_ptr<ImageModel>> MakeGoldenModel(const Json& meta);

// Fills every parameter and f32 buffer from its name, with the case's `fill_scale`.
void FillParameters(const Json& meta, ParameterStore& store);

// Images [B, H, W, C] filled from a name as [B, C, H, W].
Tensor GoldenImages(const std::string& name, const std::vector<int64_t>& nchw);

}  // namespace tessera

#endif  // TESSERA_TESTS_GOLDEN_GOLDEN_MODEL_H_
