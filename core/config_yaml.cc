// YAML text to ConfigNode and back.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cctype>
#include <exception>
#include <sstream>
#include <utility>

#include "core/config_node.h"
#include "core/status.h"

namespace tessera {
namespace {

constexpr size_t kMaxBytes = size_t{1} << 20;
constexpr size_t kMaxDepth = 32;
constexpr size_t kMaxKeyBytes = 200;     // YAML has a limit of 1024, for a dump's escapes as well
constexpr size_t kMaxKeysPerMap = 1000;  // keeps linear search in a map harmless

// Builds the tree from the parser's events. After the first error it ignores what follows.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(absl::string_view source) : source_(source) {}

  const absl::Status& status() const { return status_; }
  ConfigNode TakeRoot() { return std::move(root_); }
  std::string Place(const YAML::Mark& mark) const {
    if (mark.is_null()) return std::string(source_);
    return absl::StrFormat("%s:%d:%d", source_, mark.line + 1, mark.column + 1);
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (!Accept(mark, "", anchor)) return;
    if (ExpectsKey()) return Fail(mark, "a key must be a name");
    Add(mark, ConfigNode::Kind::kNull);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    Fail(mark, "aliases (*name) are not supported; write the value out");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (!Accept(mark, tag, anchor)) return;
    if (ExpectsKey()) return AddKey(mark, value);
    ConfigNode* node = Add(mark, ConfigNode::Kind::kScalar);
    node->scalar = value;
    node->quoted = tag == "!";
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, ConfigNode::Kind::kList);
  }
  void OnSequenceEnd() override { Close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    Open(mark, tag, anchor, ConfigNode::Kind::kMap);
  }
  void OnMapEnd() override { Close(); }

 private:
  struct Frame {
    ConfigNode* node;
    bool expects_key;
  };

  void Fail(const YAML::Mark& mark, absl::string_view message) {
    if (status_.ok()) status_ = ConfigError(absl::StrFormat("%s: %s", Place(mark), message));
  }

  // Plain nodes are tagged "?" and quoted scalars "!" by the parser itself.
  bool Accept(const YAML::Mark& mark, absl::string_view tag, YAML::anchor_t anchor) {
    if (anchor != YAML::NullAnchor) Fail(mark, "anchors (&name) are not supported");
    if (!tag.empty() && tag != "?" && tag != "!") Fail(mark, "tags (!name) are not supported");
    return status_.ok();
  }

  bool ExpectsKey() const { return !open_.empty() && open_.back().expects_key; }

  void AddKey(const YAML::Mark& mark, const std::string& key) {
    ConfigNode* map = open_.back().node;
    if (key.size() > kMaxKeyBytes) {
      return Fail(mark, absl::StrFormat("a key of %d bytes, at most %d are allowed", key.size(),
                                        kMaxKeyBytes));
    }
    if (map->Find(key) != nullptr) {
      return Fail(mark, absl::StrFormat("key '%s' is given twice", key));
    }
    if (map->entries.size() == kMaxKeysPerMap) {
      return Fail(mark, absl::StrFormat("more than %d keys in one map", kMaxKeysPerMap));
    }
    map->entries.push_back({.key = key, .key_place = Place(mark), .value = {}});
    open_.back().expects_key = false;
  }

  ConfigNode* Add(const YAML::Mark& mark, ConfigNode::Kind kind) {
    ConfigNode* node = &root_;
    if (!open_.empty()) {
      Frame& parent = open_.back();
      if (parent.node->kind == ConfigNode::Kind::kList) parent.node->entries.emplace_back();
      parent.expects_key = parent.node->kind == ConfigNode::Kind::kMap;
      node = &parent.node->entries.back().value;
    }
    node->kind = kind;
    node->place = Place(mark);
    return node;
  }

  void Open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
            ConfigNode::Kind kind) {
    if (!Accept(mark, tag, anchor)) return;
    if (ExpectsKey()) return Fail(mark, "a key must be a name");
    if (open_.size() == kMaxDepth) {
      return Fail(mark, absl::StrFormat("nested more than %d levels deep", kMaxDepth));
    }
    open_.push_back({Add(mark, kind), kind == ConfigNode::Kind::kMap});
  }

  void Close() {
    if (status_.ok()) open_.pop_back();
  }

  absl::string_view source_;
  absl::Status status_;
  ConfigNode root_;
  std::vector<Frame> open_;
};

bool IsPlain(const std::string& text) {
  const auto safe = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '/' || c == '-' || c == '+';
  };
  if (text.empty() || !std::all_of(text.begin(), text.end(), safe)) return false;
  const bool has_sign = text[0] == '-' || text[0] == '+';
  return !has_sign || (text.size() > 1 && (std::isdigit(text[1]) != 0 || text[1] == '.'));
}

void AppendQuoted(const std::string& text, std::string* out) {
  out->push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      *out += {'\\', c};
    } else if (byte < 0x20 || byte == 0x7F) {
      *out += absl::StrFormat("\\x%02X", byte);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

void AppendScalar(const std::string& text, bool quoted, std::string* out) {
  if (!quoted && IsPlain(text)) {
    *out += text;
  } else {
    AppendQuoted(text, out);
  }
}

void AppendFlow(const ConfigNode& node, std::string* out) {
  switch (node.kind) {
    case ConfigNode::Kind::kNull:
      *out += "null";
      return;
    case ConfigNode::Kind::kScalar:
      AppendScalar(node.scalar, node.quoted, out);
      return;
    case ConfigNode::Kind::kList:
    case ConfigNode::Kind::kMap:
      break;
  }
  const bool is_map = node.kind == ConfigNode::Kind::kMap;
  out->push_back(is_map ? '{' : '[');
  absl::string_view separator = "";
  for (const ConfigNode::Entry& entry : node.entries) {
    absl::StrAppend(out, separator);
    separator = ", ";
    if (is_map) {
      AppendScalar(entry.key, false, out);
      *out += ": ";
    }
    AppendFlow(entry.value, out);
  }
  out->push_back(is_map ? '}' : ']');
}

void AppendBlock(const ConfigNode& map, int indent, std::string* out) {
  for (const auto& [key, place, value] : map.entries) {
    out->append(static_cast<size_t>(indent), ' ');
    AppendScalar(key, false, out);
    out->push_back(':');
    if (value.kind == ConfigNode::Kind::kMap && !value.entries.empty()) {
      out->push_back('\n');
      AppendBlock(value, indent + 2, out);
    } else {
      out->push_back(' ');
      AppendFlow(value, out);
      out->push_back('\n');
    }
  }
}

}  // namespace

absl::StatusOr<ConfigNode> ParseYaml(absl::string_view text, absl::string_view source) {
  if (text.size() > kMaxBytes) {
    return ConfigError(absl::StrFormat("%s: %d bytes of YAML, at most %d are allowed", source,
                                       text.size(), kMaxBytes));
  }
  if (text.find('\0') != absl::string_view::npos) {
    return ConfigError(absl::StrFormat("%s: holds a zero byte; is it a text file?", source));
  }
  TreeBuilder builder(source);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    parser.HandleNextDocument(builder);
    RETURN_IF_ERROR(builder.status());
    TreeBuilder rest(source);
    if (parser.HandleNextDocument(rest)) {
      return ConfigError(absl::StrFormat("%s: more than one document", source));
    }
  } catch (const YAML::Exception& error) {
    RETURN_IF_ERROR(builder.status());
    return ConfigError(absl::StrFormat("%s: %s", builder.Place(error.mark), error.msg));
  } catch (const std::exception& error) {
    return ConfigError(absl::StrFormat("%s: %s", source, error.what()));
  }
  return builder.TakeRoot();
}

std::string DumpYaml(const ConfigNode& node) {
  std::string out;
  if (node.kind == ConfigNode::Kind::kMap && !node.entries.empty()) {
    AppendBlock(node, 0, &out);
  } else if (node.kind != ConfigNode::Kind::kNull) {
    AppendFlow(node, &out);
    out.push_back('\n');
  }
  return out;
}

}  // namespace tessera
