// The names that weights have elsewhere, and those that they have here. A family lists the
// differences as rules, next to its variants:
//   {"patch_embeds.0.proj", "stem.conv"},
//   {"patch_embeds.#.proj", "stages.#.downsample.conv"},
//   {"language_model", ""},
#ifndef TESSERA_MODELS_WEIGHT_NAMES_H_
#define TESSERA_MODELS_WEIGHT_NAMES_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace tessera {

// Parts between dots are compared with the first parts of a name; a '#' in `from` stands for any
// part, and the '#'s in `to` for those parts in order. What follows in the name is kept. An empty
// `to` says that the model has no use for such tensors.
struct NameRule {
  absl::string_view from;
  absl::string_view to;
};

// The name after the first rule that fits, or `name` if none does; nothing if that rule leaves it
// out.
std::optional<std::string> RenameWeight(absl::string_view name, absl::Span<const NameRule> rules);

}  // namespace tessera

#endif  // TESSERA_MODELS_WEIGHT_NAMES_H_
