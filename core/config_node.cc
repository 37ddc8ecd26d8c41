#include "core/config_node.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>

#include "core/file_system.h"
#include "core/status.h"

namespace tessera {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 20;
constexpr int kMaxFiles = 64;  // of one configuration with all that it extends

void SetPlaces(const std::string& place, ConfigNode* node) {
  node->place = place;
  for (ConfigNode::Entry& entry : node->entries) {
    entry.key_place = place;
    SetPlaces(place, &entry.value);
  }
}

std::string CanonicalPath(const std::string& path) {
  std::error_code error;
  const std::filesystem::path canonical = std::filesystem::weakly_canonical(path, error);
  return error ? path : canonical.string();
}

// Loads one file after the files that it extends.
class Loader {
 public:
  absl::StatusOr<ConfigNode> Load(const std::string& path) {
    if (++num_files_ > kMaxFiles) {
      return ConfigError(absl::StrFormat("extends: more than %d files", kMaxFiles));
    }
    absl::StatusOr<std::string> text = PosixFileSystem().ReadFile(path, kMaxBytes);
    if (!text.ok()) return ConfigError(std::string(text.status().message()));
    ASSIGN_OR_RETURN(ConfigNode node, ParseYaml(*text, path));
    if (node.kind == ConfigNode::Kind::kNull) node.kind = ConfigNode::Kind::kMap;
    if (node.kind != ConfigNode::Kind::kMap) {
      return ConfigError(absl::StrFormat("%s: expected keys and values", node.place));
    }
    const auto extends =
        std::find_if(node.entries.begin(), node.entries.end(),
                     [](const ConfigNode::Entry& entry) { return entry.key == "extends"; });
    if (extends == node.entries.end()) return node;
    const ConfigNode bases = std::move(extends->value);
    node.entries.erase(extends);
    open_.push_back(CanonicalPath(path));
    ConfigNode result{.kind = ConfigNode::Kind::kMap, .place = node.place};
    if (bases.kind == ConfigNode::Kind::kList) {
      for (const ConfigNode::Entry& base : bases.entries) {
        RETURN_IF_ERROR(MergeBase(path, base.value, &result));
      }
    } else {
      RETURN_IF_ERROR(MergeBase(path, bases, &result));
    }
    open_.pop_back();
    MergeNode(std::move(node), &result);
    return result;
  }

 private:
  absl::Status MergeBase(const std::string& path, const ConfigNode& base, ConfigNode* result) {
    if (base.kind != ConfigNode::Kind::kScalar || base.scalar.empty()) {
      return ConfigError(
          absl::StrFormat("%s: extends: expected a file name or a list of them", base.place));
    }
    const std::string base_path =
        std::filesystem::path(JoinPath(DirectoryName(path), base.scalar)).lexically_normal();
    if (std::find(open_.begin(), open_.end(), CanonicalPath(base_path)) != open_.end()) {
      return ConfigError(
          absl::StrFormat("%s: extends: '%s' leads back to itself", base.place, base.scalar));
    }
    absl::StatusOr<ConfigNode> node = Load(base_path);
    if (!node.ok()) return Annotate(node.status(), absl::StrFormat("%s: extends", base.place));
    MergeNode(*std::move(node), result);
    return absl::OkStatus();
  }

  std::vector<std::string> open_;  // files whose bases are being loaded
  int num_files_ = 0;
};

}  // namespace

const ConfigNode* ConfigNode::Find(absl::string_view key) const {
  if (kind != Kind::kMap) return nullptr;
  for (const Entry& entry : entries) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

ConfigNode* ConfigNode::Find(absl::string_view key) {
  return const_cast<ConfigNode*>(std::as_const(*this).Find(key));
}

absl::StatusOr<std::string> ConfigNode::TakeString(absl::string_view key) {
  const std::string name = path.empty() ? std::string(key) : absl::StrFormat("%s.%s", path, key);
  for (auto entry = entries.begin(); kind == Kind::kMap && entry != entries.end(); ++entry) {
    if (entry->key != key) continue;
    if (entry->value.kind != Kind::kScalar) {
      return ConfigError(absl::StrFormat("%s: %s: expected a string", entry->key_place, name));
    }
    std::string result = std::move(entry->value.scalar);
    entries.erase(entry);
    return result;
  }
  return ConfigError(absl::StrFormat("%s%s%s is required", place, place.empty() ? "" : ": ", name));
}

void MergeNode(ConfigNode over, ConfigNode* base) {
  if (over.kind == ConfigNode::Kind::kNull) return;
  if (over.kind != ConfigNode::Kind::kMap || base->kind != ConfigNode::Kind::kMap) {
    *base = std::move(over);
    return;
  }
  for (ConfigNode::Entry& entry : over.entries) {
    if (ConfigNode* existing = base->Find(entry.key)) {
      MergeNode(std::move(entry.value), existing);
    } else {
      base->entries.push_back(std::move(entry));
    }
  }
}

absl::StatusOr<ConfigNode> LoadConfigNode(const std::string& path,
                                          const std::vector<std::string>& overrides) {
  Loader loader;
  ASSIGN_OR_RETURN(ConfigNode root, loader.Load(path));
  for (const std::string& text : overrides) RETURN_IF_ERROR(ApplyOverride(text, &root));
  return root;
}

absl::Status ApplyOverride(absl::string_view override_text, ConfigNode* root) {
  const std::string place = absl::StrFormat("override '%s'", override_text);
  const size_t equals = override_text.find('=');
  if (equals == absl::string_view::npos) {
    return ConfigError(absl::StrFormat("%s: expected key=value, as in optim.lr=0.001", place));
  }
  const absl::string_view value_text = override_text.substr(equals + 1);
  ConfigNode over{.kind = ConfigNode::Kind::kScalar, .quoted = true};
  if (!value_text.empty()) {
    ASSIGN_OR_RETURN(over, ParseYaml(value_text, place));
  }
  // The value in a map for each name before it, the last one first.
  absl::string_view names = override_text.substr(0, equals);
  for (bool more = true; more;) {
    const size_t dot = names.rfind('.');
    more = dot != absl::string_view::npos;
    const absl::string_view name = more ? names.substr(dot + 1) : names;
    if (name.empty()) return ConfigError(absl::StrFormat("%s: empty name in the key", place));
    ConfigNode map{.kind = ConfigNode::Kind::kMap};
    map.entries.push_back({.key = std::string(name), .key_place = {}, .value = std::move(over)});
    over = std::move(map);
    names = more ? names.substr(0, dot) : absl::string_view();
  }
  SetPlaces(place, &over);
  MergeNode(std::move(over), root);
  return absl::OkStatus();
}

}  // namespace tessera
