// Suggestions for mistyped names: "unknown key 'wieght_decay'; did you mean 'weight_decay'?"
#ifndef TESSERA_CORE_EDIT_DISTANCE_H_
#define TESSERA_CORE_EDIT_DISTANCE_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace tessera {

// Number of insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`
// (optimal string alignment, in bytes).
int EditDistance(absl::string_view a, absl::string_view b);

// "; did you mean 'X'?" for the candidate X nearest to `name`, the first one of several; empty when
// none is within a third of the name's length.
std::string DidYouMean(absl::string_view name, absl::Span<const std::string> candidates);

}  // namespace tessera

#endif  // TESSERA_CORE_EDIT_DISTANCE_H_
