#include "models/registry.h"

#include <algorithm>

#include "core/check.h"
#include "core/edit_distance.h"

namespace tessera {
namespace {

// A function's static, because families register before main in any order.
std::vector<ModelVariant>& Variants() {
  static auto* const variants = new std::vector<ModelVariant>;
  return *variants;
}

}  // namespace

bool RegisterModels(std::vector<ModelVariant> variants) {
  for (ModelVariant& variant : variants) Variants().push_back(std::move(variant));
  return true;
}

std::vector<const ModelVariant*> AllModels() {
  std::vector<const ModelVariant*> all;
  for (const ModelVariant& variant : Variants()) all.push_back(&variant);
  std::stable_sort(all.begin(), all.end(), [](const ModelVariant* a, const ModelVariant* b) {
    return a->family < b->family;
  });
  return all;
}

absl::StatusOr<const ModelVariant*> FindModel(absl::string_view name) {
  std::vector<std::string> names;
  for (const ModelVariant& variant : Variants()) {
    if (variant.name == name) return &variant;
    names.push_back(variant.name);
  }
  const std::string suggestion = DidYouMean(name, names);
  return ConfigError(absl::StrCat("there is no model '", name, "'", suggestion,
                                  suggestion.empty() ? "; " : " ", "`tessera models` lists all"));
}

}  // namespace tessera
