// Models of the registry, for tests.
#ifndef TESSERA_TESTS_MODELS_MODEL_TESTING_H_
#define TESSERA_TESTS_MODELS_MODEL_TESTING_H_

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "core/check.h"
#include "models/registry.h"

namespace tessera {

// `options` and, over them, `more`: YAML maps.
inline std::unique_ptr<ImageModel> MakeModel(const std::string& name, const std::string& options,
                                             const std::string& more = "{}") {
  auto node = ParseYaml(options, "test"), over = ParseYaml(more, "test");
  CHECK(node.ok() && over.ok()) << node.status() << over.status();
  MergeNode(*over, &*node);
  auto model = (*FindModel(name))->create(*node);
  CHECK(model.ok()) << model.status();
  return *std::move(model);
}

// Billions of multiply-adds for a square image.
inline double Gmacs(const ImageModel& model, int64_t image_size) {
  double macs = 0;
  for (const StageCost& cost : model.Costs(image_size, image_size)) {
    macs += static_cast<double>(cost.macs);
  }
  return macs * 1e-9;
}

inline bool SameBits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

}  // namespace tessera

#endif  // TESSERA_TESTS_MODELS_MODEL_TESTING_H_
