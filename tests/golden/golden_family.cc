#include "tests/golden/golden_family.h"

namespace tessera {
namespace {

std::map<std::string, GoldenFamily>& Families() {
  static auto* const families = new std::map<std::string, GoldenFamily>();
  return *families;
}

}  // namespace

const GoldenFamily& FindGoldenFamily(const std::string& name) { return Families()[name]; }

bool RegisterGoldenFamily(const std::string& name, GoldenFamily family) {
  Families()[name] = std::move(family);
  return true;
}

}  // namespace tessera
