#include "models/weight_names.h"

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/check.h"

namespace tessera {
namespace {

using Parts = std::vector<absl::string_view>;

Parts PartsOf(absl::string_view name) { return absl::StrSplit(name, '.'); }

// Whether `from` fits the start of `name`; then `wild` holds what its '#'s stand for.
bool Fits(const Parts& from, const Parts& name, Parts* wild) {
  if (from.size() > name.size()) return false;
  wild->clear();
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i] == "#") {
      wild->push_back(name[i]);
    } else if (from[i] != name[i]) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::optional<std::string> RenameWeight(absl::string_view name, absl::Span<const NameRule> rules) {
  const Parts parts = PartsOf(name);
  for (const NameRule& rule : rules) {
    const Parts from = PartsOf(rule.from);
    Parts wild;
    if (!Fits(from, parts, &wild)) continue;
    if (rule.to.empty()) return std::nullopt;
    Parts renamed = PartsOf(rule.to);
    size_t used = 0;
    for (absl::string_view& part : renamed) {
      if (part != "#") continue;
      CHECK_LT(used, wild.size()) << "rule " << rule.from << " -> " << rule.to;
      part = wild[used++];
    }
    renamed.insert(renamed.end(), parts.begin() + static_cast<std::ptrdiff_t>(from.size()),
                   parts.end());
    return absl::StrJoin(renamed, ".");
  }
  return std::string(name);
}

}  // namespace tessera
