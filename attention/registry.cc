#include "attention/registry.h"

#include <algorithm>

namespace tessera {
namespace {

std::vector<AttentionMechanism>& Mechanisms() {
  static std::vector<AttentionMechanism> mechanisms;
  return mechanisms;
}

}  // namespace

const std::vector<AttentionMechanism>& AllAttentionMechanisms() { return Mechanisms(); }

bool RegisterAttention(absl::string_view name,
                       AttentionProblem (*problem)(const AttentionSize& size)) {
  std::vector<AttentionMechanism>& all = Mechanisms();
  const auto place =
      std::lower_bound(all.begin(), all.end(), name,
                       [](const AttentionMechanism& m, absl::string_view n) { return m.name < n; });
  all.insert(place, {std::string(name), problem});
  return true;
}

}  // namespace tessera
