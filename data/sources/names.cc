#include "data/sources/names.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "core/status.h"

namespace tessera::internal {
namespace {

constexpr size_t kMaxExpanded = 1'000'000;
constexpr size_t kMaxListed = 8;

size_t EndOfDigits(absl::string_view s, size_t at) {
  while (at < s.size() && absl::ascii_isdigit(s[at])) ++at;
  return at;
}

// -1, 0 or 1 for two runs of digits of any length.
int CompareNumbers(absl::string_view a, absl::string_view b) {
  a.remove_prefix(std::min(a.find_first_not_of('0'), a.size()));
  b.remove_prefix(std::min(b.find_first_not_of('0'), b.size()));
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  const int order = a.compare(b);
  return order < 0 ? -1 : order > 0;
}

bool HasExtension(absl::string_view name, std::initializer_list<absl::string_view> extensions) {
  return std::any_of(extensions.begin(), extensions.end(), [name](absl::string_view extension) {
    return name.size() > extension.size() && absl::EndsWithIgnoreCase(name, extension);
  });
}

absl::Status BadRange(absl::string_view text) {
  return ConfigError(absl::StrCat("shard list '", text,
                                  "': expected a range such as {000000..000127} in the braces"));
}

}  // namespace

bool NaturalLess(absl::string_view a, absl::string_view b) {
  size_t i = 0;
  size_t j = 0;
  while (i < a.size() && j < b.size()) {
    if (absl::ascii_isdigit(a[i]) && absl::ascii_isdigit(b[j])) {
      const size_t a_end = EndOfDigits(a, i);
      const size_t b_end = EndOfDigits(b, j);
      const int order = CompareNumbers(a.substr(i, a_end - i), b.substr(j, b_end - j));
      if (order != 0) return order < 0;
      i = a_end;
      j = b_end;
      continue;
    }
    const auto x = static_cast<unsigned char>(absl::ascii_tolower(a[i++]));
    const auto y = static_cast<unsigned char>(absl::ascii_tolower(b[j++]));
    if (x != y) return x < y;
  }
  if (a.size() - i != b.size() - j) return a.size() - i < b.size() - j;
  return a < b;
}

bool IsImageName(absl::string_view name) {
  return HasExtension(name, {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"});
}
bool IsTarName(absl::string_view name) { return HasExtension(name, {".tar"}); }
bool IsHidden(absl::string_view name) { return absl::StartsWith(name, "."); }

absl::StatusOr<std::vector<std::string>> ExpandBraces(absl::string_view text) {
  const size_t open = text.find('{');
  if (open == absl::string_view::npos) return std::vector<std::string>{std::string(text)};
  const size_t close = text.find('}', open);
  const size_t dots = text.find("..", open);
  if (close == absl::string_view::npos || dots > close) return BadRange(text);
  const absl::string_view first = text.substr(open + 1, dots - open - 1);
  const absl::string_view last = text.substr(dots + 2, close - dots - 2);
  int64_t begin = 0;
  int64_t end = 0;
  if (!absl::SimpleAtoi(first, &begin) || !absl::SimpleAtoi(last, &end) || begin < 0 ||
      end < begin) {
    return BadRange(text);
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> tails, ExpandBraces(text.substr(close + 1)));
  if (static_cast<uint64_t>(end - begin) >= kMaxExpanded / tails.size()) {
    return ConfigError(absl::StrCat("shard list '", text, "': more than ", kMaxExpanded, " names"));
  }
  std::vector<std::string> result;
  for (int64_t i = begin; i <= end; ++i) {
    // Numbers are as wide as the first one is written.
    const std::string number = absl::StrCat(i);
    const std::string zeros(first.size() - std::min(first.size(), number.size()), '0');
    for (const std::string& tail : tails) {
      result.push_back(absl::StrCat(text.substr(0, open), zeros, number, tail));
    }
  }
  return result;
}

std::string ListNames(const std::vector<std::string>& names) {
  if (names.empty()) return "nothing";
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMaxListed); ++i) {
    absl::StrAppend(&text, i == 0 ? "'" : ", '", names[i], "'");
  }
  if (names.size() > kMaxListed)
    absl::StrAppend(&text, " and ", names.size() - kMaxListed, " more");
  return text;
}

}  // namespace tessera::internal
