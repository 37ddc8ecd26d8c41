// A piece of YAML that knows where it came from, so that a value found wrong later is still
// reported by file, line and column. A struct field of this type keeps its part of the
// configuration unread until the struct that it belongs to is known: the family-specific part of
// `model:` is read once `model.name` has chosen the family.
#ifndef TESSERA_CORE_CONFIG_NODE_H_
#define TESSERA_CORE_CONFIG_NODE_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tessera {

class ConfigNode {
 public:
  enum class Kind { kNull, kScalar, kList, kMap };
  struct Entry;

  Kind kind = Kind::kNull;
  std::string scalar;          // the text of a scalar, escapes resolved
  bool quoted = false;         // a quoted scalar is a string, never a number or a truth value
  std::vector<Entry> entries;  // of a map in their order; of a list, with empty keys
  std::string place;           // "configs/a.yaml:12:3" or "override 'optim.lr=1'"
  std::string path;            // dotted name in the configuration, as in "model"; root: empty

  // The value under `key`, or null if there is none or this is no map.
  const ConfigNode* Find(absl::string_view key) const;
  ConfigNode* Find(absl::string_view key);
  // Removes and returns the string under `key`, as in `name` of a model. ConfigError if it is
  // missing or no string.
  absl::StatusOr<std::string> TakeString(absl::string_view key);
};

struct ConfigNode::Entry {
  std::string key;
  std::string key_place;
  ConfigNode value;
};

// Parses one YAML document. Refuses anchors, aliases, tags, repeated keys, several documents, more
// than 1 MiB and more than 32 levels. `source` names the text in errors and places.
absl::StatusOr<ConfigNode> ParseYaml(absl::string_view text, absl::string_view source);

// Lays `over` on `base`: maps merge key by key, null changes nothing, anything else replaces what
// was there.
void MergeNode(ConfigNode over, ConfigNode* base);

// The file at `path` on top of the files that its `extends:` key lists (one or a list, relative to
// the file; later ones win), with `overrides` ("a.b=c", c in YAML) on top. See MergeNode.
absl::StatusOr<ConfigNode> LoadConfigNode(const std::string& path,
                                          const std::vector<std::string>& overrides);

// Merges "a.b=c", c in YAML, into `root`. Nothing after the equals sign is the empty string.
absl::Status ApplyOverride(absl::string_view override_text, ConfigNode* root);

// YAML in block style (lists in flow style) that reads back as the same configuration.
std::string DumpYaml(const ConfigNode& node);

}  // namespace tessera

#endif  // TESSERA_CORE_CONFIG_NODE_H_
