// What a user of the installed libraries writes: a model from the registry and one forward pass.
#include <iostream>

#include "models/registry.h"

int main() {
  const auto options = tessera::ParseYaml(
      "{depths: [1, 1], embed_dims: [16, 32], num_heads: [1, 2], num_classes: 10}", "options");
  auto model = (*tessera::FindModel("davit"))->create(*options);
  if (!model.ok()) {
    std::cerr << model.status() << '\n';
    return 1;
  }
  tessera::ParameterStore store(**model, /*seed=*/0, /*bf16_copies=*/false);
  const auto images = tessera::Tensor::Zeros({2, 32, 32, 3}, tessera::DType::kF32);
  std::cout << "logits " << (*model)->Forward(images, {}).shape() << '\n';
}
