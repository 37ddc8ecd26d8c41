#include "core/edit_distance.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_format.h"

namespace tessera {

int EditDistance(absl::string_view a, absl::string_view b) {
  const size_t columns = b.size() + 1;
  std::vector<int> before_previous(columns), previous(columns), current(columns);
  for (size_t j = 0; j < columns; ++j) previous[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    current[0] = static_cast<int>(i);
    for (size_t j = 1; j < columns; ++j) {
      const int replace = previous[j - 1] + (a[i - 1] != b[j - 1] ? 1 : 0);
      current[j] = std::min({replace, previous[j] + 1, current[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        current[j] = std::min(current[j], before_previous[j - 2] + 1);
      }
    }
    before_previous.swap(previous);
    previous.swap(current);
  }
  return previous.back();
}

std::string DidYouMean(absl::string_view name, absl::Span<const std::string> candidates) {
  constexpr size_t kLongestName = 100;  // beyond it the quadratic cost buys no suggestion
  if (name.size() > kLongestName) return "";
  const std::string* nearest = nullptr;
  int smallest = std::max<int>(1, static_cast<int>(name.size()) / 3) + 1;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kLongestName) continue;
    const int distance = EditDistance(name, candidate);
    if (distance < smallest) {
      smallest = distance;
      nearest = &candidate;
    }
  }
  return nearest == nullptr ? "" : absl::StrFormat("; did you mean '%s'?", *nearest);
}

}  // namespace tessera
