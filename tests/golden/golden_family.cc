#include "tests/golden/golden_family.h"

namespace tessera {
namespace {

std::map<std::string, GoldenFamily>& Families() {
  static auto* const families = new std::map<std::string, GoldenFamily>();
  return *families;
}

std::map<std::string, GoldenFileCheck>& Files() {
  static auto* const files = new std::map<std::string, GoldenFileCheck>();
  return *files;
}

}  // namespace

const GoldenFamily& FindGoldenFamily(const std::string& name) { return Families()[name]; }

bool RegisterGoldenFamily(const std::string& name, GoldenFamily family) {
  Families()[name] = std::move(family);
  return true;
}

GoldenFileCheck FindGoldenFile(const std::string& name) {
  const auto found = Files().find(name);
  return found == Files().end() ? nullptr : found->second;
}

bool RegisterGoldenFile(const std::string& name, GoldenFileCheck check) {
  Files()[name] = check;
  return true;
}

}  // namespace tessera
