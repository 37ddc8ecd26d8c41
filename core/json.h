// JSON that comes from outside: parsed without exceptions, with caps on size and depth, repeated
// keys refused. Errors look like
//   annotations.json:12:3: key 'images' is given twice
#ifndef TESSERA_CORE_JSON_H_
#define TESSERA_CORE_JSON_H_

#include <cstdint>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

using Json = nlohmann::json;

struct JsonLimits {
  int64_t max_bytes = int64_t{1} << 30;
  int max_depth = 64;
};

// The one value that `text` holds. `source` names the text in errors, which are DataErrors.
absl::StatusOr<Json> ParseJson(absl::string_view text, absl::string_view source,
                               const JsonLimits& limits = {});

}  // namespace tessera

#endif  // TESSERA_CORE_JSON_H_
