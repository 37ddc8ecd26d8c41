// Names of files: their order, which of them are pictures, and lists written with braces.
#ifndef TESSERA_DATA_SOURCES_NAMES_H_
#define TESSERA_DATA_SOURCES_NAMES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera::internal {

// Order in which runs of digits compare as numbers and letters without their case: "a2" < "A10".
// Names that differ only in case or leading zeros compare by bytes. This is timm's order of
// classes and samples.
bool NaturalLess(absl::string_view a, absl::string_view b);

bool IsImageName(absl::string_view name);  // by extension, in any case
bool IsTarName(absl::string_view name);
bool IsHidden(absl::string_view name);  // starts with a dot

// "a-{08..11}.tar" gives a-08.tar, a-09.tar, a-10.tar, a-11.tar. Without braces: the text itself.
absl::StatusOr<std::vector<std::string>> ExpandBraces(absl::string_view text);

// "'a', 'b', 'c' and 7 more"; "nothing" for no names.
std::string ListNames(const std::vector<std::string>& names);

}  // namespace tessera::internal

#endif  // TESSERA_DATA_SOURCES_NAMES_H_
