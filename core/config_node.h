// A piece of YAML that knows where it came from, so that a value found wrong later is still
// reported by file, line and column. A struct field of this type keeps its part of the
// configuration unread until the struct that it belongs to is known: the family-specific part of
// `model:` is read once `model.name` has chosen the family.
#ifndef TESSERA_CORE_CONFIG_NODE_H_
#define TESSERA_CORE_CONFIG_NODE_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

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
  std::string
      path;  // dotted name of this node in the configuration, as in "model"; empty for the root

  // The value under `key`, or null if there is none or this is no map.
  const ConfigNode* Find(std::string_view key) const;
  ConfigNode* Find(std::string_view key);
  // Removes and returns the string under `key`, as in `name` of a model. ConfigError if it is
  // missing or no string.
  absl::StatusOr<std::string> TakeString(std::string_view key);
};

struct ConfigNode::Entry {
  std::string key;
  std::string key_place;
  ConfigNode value;
};

// Parses one YAML document. Refuses anchors, aliases, tags, repeated keys, several documents, more
// than 1 MiB and more than 32 levels. `source` names the text in errors and places.
absl::StatusOr<ConfigNode> ParseYaml(std::string_view text, std::string_view source);

// The file at `path` on top of the files that its `extends:` key lists (one or a list, relative to
// the file; later ones win), with `overrides` ("a.b=c", c in YAML) on top. Maps merge key by key,
// anything else is replaced as a whole.
absl::StatusOr<ConfigNode> LoadConfigNode(const std::string& path,
                                          const std::vector<std::string>& overrides);

// Puts "a.b=c" into `root`.
absl::Status ApplyOverride(std::string_view override_text, ConfigNode* root);

// YAML in block style (lists in flow style) that parses to the same node.
std::string DumpYaml(const ConfigNode& node);

}  // namespace tessera

#endif  // TESSERA_CORE_CONFIG_NODE_H_
