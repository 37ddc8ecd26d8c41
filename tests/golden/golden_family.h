// What golden cases need to know of a family of models beyond its registry entry: how options of
// the official code translate, and the modules of it that have cases of their own. A family
// registers itself in tests/golden/families/NAME.cc.
#ifndef TESSERA_TESTS_GOLDEN_GOLDEN_FAMILY_H_
#define TESSERA_TESTS_GOLDEN_GOLDEN_FAMILY_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/json.h"
#include "layers/forward_context.h"
#include "tests/golden/golden_case.h"

namespace tessera {

// A module under test, and its results under the names that follow "out." in a case. "y" and "f0",
// "f1", ... are multiplied by a cotangent and so give the gradients; others are only compared.
struct GoldenModule {
  using Outputs = std::vector<std::pair<std::string, Tensor>>;
  std::unique_ptr<Module> module;  // parameters are named as the case's
  // x and all maps are channels last; what a case stores as [B, C, H, W] is converted.
  std::function<Outputs(const Tensor& x, const ForwardContext& context)> forward;
};

struct GoldenFamily {
  // Options of the model from the `config` (and `kind`) of a case; null: `config` as it is.
  Json (*options)(const Json& meta) = nullptr;
  // Taps are compared as tokens [B, H * W, C] instead of [B, C, H, W].
  bool token_taps = false;
  // Ends of the names of modules whose maps a case stores channels last.
  std::vector<std::string> channels_last_taps;
  // Mechanisms (scope op) and backbones (scope backbone) by the `kind` of a case.
  std::map<std::string, std::function<absl::StatusOr<GoldenModule>(const Json& meta)>> modules;
};

// The family of this name; an empty one if none was registered.
const GoldenFamily& FindGoldenFamily(const std::string& name);
bool RegisterGoldenFamily(const std::string& name, GoldenFamily family);

#define REGISTER_GOLDEN_FAMILY(name, ...) \
  [[maybe_unused]] static const bool name##_registered = RegisterGoldenFamily(#name, __VA_ARGS__)

// Checks of a file of tensors that comes without a description.
using GoldenFileCheck = absl::StatusOr<CaseResult> (*)(const GoldenCase& golden);
// The check of NAME.safetensors; null if none was registered.
GoldenFileCheck FindGoldenFile(const std::string& name);
bool RegisterGoldenFile(const std::string& name, GoldenFileCheck check);

#define REGISTER_GOLDEN_FILE(name, check) \
  [[maybe_unused]] static const bool name##_registered = RegisterGoldenFile(#name, check)

}  // namespace tessera

#endif  // TESSERA_TESTS_GOLDEN_GOLDEN_FAMILY_H_
