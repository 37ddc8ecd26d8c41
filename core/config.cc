#include "core/config.h"

#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <type_traits>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/edit_distance.h"

namespace tessera {
namespace {

template <typename T>
inline constexpr bool kIsList = false;
template <typename T>
inline constexpr bool kIsList<std::vector<T>> = true;

std::string ChildPath(const std::string& path, absl::string_view name) {
  return path.empty() ? std::string(name) : absl::StrFormat("%s.%s", path, name);
}

std::string FormatDouble(double value) {
  if (std::isinf(value)) return value > 0 ? ".inf" : "-.inf";
  char buffer[32];  // the shortest text that reads back to the same bits has at most 24 characters
  const auto end = std::to_chars(std::begin(buffer), std::end(buffer), value).ptr;
  return std::string(buffer, end);
}

// What the value was, for the end of an error message; long or unprintable text is shortened and
// escaped.
std::string DescribeFound(const ConfigNode& node) {
  constexpr size_t kMaxShown = 60;
  switch (node.kind) {
    case ConfigNode::Kind::kNull:
      return "nothing";
    case ConfigNode::Kind::kList:
      return "a list";
    case ConfigNode::Kind::kMap:
      return "a section";
    case ConfigNode::Kind::kScalar:
      break;
  }
  const std::string shown = absl::Utf8SafeCHexEscape(node.scalar.substr(0, kMaxShown)) +
                            (node.scalar.size() > kMaxShown ? "..." : "");
  return node.quoted ? absl::StrCat("the string \"", shown, "\"") : absl::StrCat("'", shown, "'");
}

bool ParseScalar(const ConfigNode& node, bool* value) {
  if (node.quoted || (node.scalar != "true" && node.scalar != "false")) return false;
  *value = node.scalar == "true";
  return true;
}

bool ParseScalar(const ConfigNode& node, int64_t* value) {
  return !node.quoted && absl::SimpleAtoi(node.scalar, value);
}

bool ParseScalar(const ConfigNode& node, double* value) {
  if (node.quoted) return false;
  if (node.scalar == ".inf" || node.scalar == "-.inf") {
    *value = std::copysign(std::numeric_limits<double>::infinity(), node.scalar[0] == '-' ? -1 : 1);
    return true;
  }
  return absl::SimpleAtod(node.scalar, value) && std::isfinite(*value);
}

bool ParseScalar(const ConfigNode& node, std::string* value) {
  *value = node.scalar;
  return true;
}

template <typename T>
bool Satisfies(const T& value, const FieldLimits& limits) {
  if constexpr (std::is_same_v<T, std::string>) {
    const auto& choices = limits.choices;
    return choices.empty() || std::find(choices.begin(), choices.end(), value) != choices.end();
  } else {
    const auto number = static_cast<double>(value);
    return (limits.excludes_min ? number > limits.min : number >= limits.min) &&
           (limits.excludes_max ? number < limits.max : number <= limits.max);
  }
}

template <typename T>
absl::string_view TypeName() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, int64_t>) return "an integer";
  if constexpr (std::is_same_v<T, double>) return "a number";
  return "a string";
}

// "", ">= 0", "in [0, 1)", "one of adamw, sgd".
std::string DescribeLimits(const FieldLimits& limits) {
  if (!limits.choices.empty()) {
    return absl::StrFormat("one of %s", absl::StrJoin(limits.choices, ", "));
  }
  const bool has_min = std::isfinite(limits.min);
  const bool has_max = std::isfinite(limits.max);
  if (has_min && has_max) {
    return absl::StrFormat("in %c%s, %s%c", limits.excludes_min ? '(' : '[',
                           FormatDouble(limits.min), FormatDouble(limits.max),
                           limits.excludes_max ? ')' : ']');
  }
  if (has_min) {
    return absl::StrFormat("%s %s", limits.excludes_min ? ">" : ">=", FormatDouble(limits.min));
  }
  if (has_max) {
    return absl::StrFormat("%s %s", limits.excludes_max ? "<" : "<=", FormatDouble(limits.max));
  }
  return "";
}

absl::Status WrongValue(const ConfigNode& node, const std::string& path, absl::string_view expected,
                        absl::string_view suggestion = "") {
  return ConfigError(absl::StrFormat("%s%s%s: expected %s, found %s%s", node.place,
                                     node.place.empty() ? "" : ": ", path, expected,
                                     DescribeFound(node), suggestion));
}

template <typename T>
absl::Status ReadValue(const ConfigNode& node, const std::string& path, const FieldLimits& limits,
                       T* value) {
  if constexpr (std::is_same_v<T, ConfigNode>) {
    MergeNode(node, value);
    value->path = path;
  } else if constexpr (kIsList<T>) {
    if (node.kind != ConfigNode::Kind::kList) {
      return WrongValue(node, path, "a list in the form [a, b]");
    }
    value->assign(node.entries.size(), {});
    for (size_t i = 0; i < value->size(); ++i) {
      RETURN_IF_ERROR(ReadValue(node.entries[i].value, absl::StrFormat("%s[%d]", path, i), limits,
                                &(*value)[i]));
    }
  } else {
    if (node.kind == ConfigNode::Kind::kScalar && ParseScalar(node, value) &&
        Satisfies(*value, limits)) {
      return absl::OkStatus();
    }
    const std::string allowed = DescribeLimits(limits);
    if (!limits.choices.empty()) {
      return WrongValue(node, path, allowed, DidYouMean(node.scalar, limits.choices));
    }
    return WrongValue(
        node, path, absl::StrFormat("%s%s%s", TypeName<T>(), allowed.empty() ? "" : " ", allowed));
  }
  return absl::OkStatus();
}

// Dotted name below `fields` of a field called `name`, empty if there is none.
std::string FindNested(const std::vector<ConfigField>& fields, absl::string_view name) {
  for (const ConfigField& field : fields) {
    if (field.name == name) return std::string(name);
    const std::string below = FindNested(field.children, name);
    if (!below.empty()) return ChildPath(std::string(field.name), below);
  }
  return "";
}

absl::Status UnknownKey(const ConfigNode::Entry& entry, const std::string& path,
                        const std::vector<ConfigField>& fields) {
  std::vector<std::string> names;
  for (const ConfigField& field : fields) names.emplace_back(field.name);
  std::string hint = DidYouMean(entry.key, names);
  if (hint.empty()) {
    const std::string nested = FindNested(fields, entry.key);
    hint = nested.empty() ? absl::StrFormat("; known keys: %s", absl::StrJoin(names, ", "))
                          : absl::StrFormat("; did you mean '%s'?", nested);
  }
  return ConfigError(absl::StrFormat(
      "%s%sunknown key '%s'%s%s%s", entry.key_place, entry.key_place.empty() ? "" : ": ",
      absl::Utf8SafeCHexEscape(entry.key), path.empty() ? "" : " in ", path, hint));
}

absl::Status ReadGroup(const ConfigNode& node, const std::string& path,
                       const std::vector<ConfigField>& fields) {
  if (node.kind == ConfigNode::Kind::kNull) return absl::OkStatus();
  if (node.kind != ConfigNode::Kind::kMap) {
    return WrongValue(node, path.empty() ? "configuration" : path, "a section with keys");
  }
  for (const ConfigNode::Entry& entry : node.entries) {
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const ConfigField& field) {
      return field.name == entry.key;
    });
    if (field == fields.end()) return UnknownKey(entry, path, fields);
    const std::string child_path = ChildPath(path, entry.key);
    const auto read = [&](auto target) -> absl::Status {
      if constexpr (std::is_same_v<decltype(target), std::monostate>) {
        return ReadGroup(entry.value, child_path, field->children);
      } else {
        return ReadValue(entry.value, child_path, field->limits, target);
      }
    };
    RETURN_IF_ERROR(std::visit(read, field->target));
  }
  return absl::OkStatus();
}

// Whether a YAML reader would take the plain text for something else than a string.
bool LooksLikeOtherType(const std::string& text) {
  static constexpr const char* kWords[] = {"true", "false", "null", "yes", "no", "on", "off"};
  double number;
  if (absl::SimpleAtod(text, &number) || text.starts_with('.')) return true;
  return std::any_of(std::begin(kWords), std::end(kWords),
                     [&](const char* word) { return absl::EqualsIgnoreCase(text, word); });
}

template <typename T>
ConfigNode NodeFromValue(const T& value) {
  ConfigNode node{.kind = ConfigNode::Kind::kScalar};
  if constexpr (std::is_same_v<T, bool>) {
    node.scalar = value ? "true" : "false";
  } else if constexpr (std::is_same_v<T, int64_t>) {
    node.scalar = std::to_string(value);
  } else if constexpr (std::is_same_v<T, double>) {
    node.scalar = FormatDouble(value);
  } else if constexpr (std::is_same_v<T, std::string>) {
    node.scalar = value;
    node.quoted = LooksLikeOtherType(value);
  } else if constexpr (std::is_same_v<T, ConfigNode>) {
    node = value;
  } else {
    node.kind = ConfigNode::Kind::kList;
    for (const auto& element : value) node.entries.push_back({{}, {}, NodeFromValue(element)});
  }
  return node;
}

absl::string_view ShortType(const ConfigField::Target& target) {
  static constexpr absl::string_view kNames[std::variant_size_v<ConfigField::Target>] = {
      "", "bool", "int", "float", "string", "[int]", "[float]", "[string]", "section"};
  return kNames[target.index()];
}

// `text` in lines of at most 80 columns, indented.
void AppendWrapped(absl::string_view text, std::string* out) {
  constexpr size_t kColumns = 80;
  size_t column = 0;  // none yet
  for (const absl::string_view word : absl::StrSplit(text, ' ', absl::SkipEmpty())) {
    const bool starts_line = column == 0 || column + 1 + word.size() > kColumns;
    if (starts_line && column > 0) *out += "\n";
    absl::StrAppend(out, starts_line ? "    " : " ", word);
    column = (starts_line ? 4 : column + 1) + word.size();
  }
  if (!text.empty()) *out += "\n";
}

void AppendDescriptions(const std::vector<ConfigField>& fields, const std::string& path,
                        std::string* out) {
  for (const ConfigField& field : fields) {
    const std::string name = ChildPath(path, field.name);
    if (std::holds_alternative<std::monostate>(field.target)) {
      AppendDescriptions(field.children, name, out);
      continue;
    }
    std::string value = DumpYaml(internal::NodeFromFields({field}));
    value.erase(0, std::min(value.size(), field.name.size() + 2));
    if (!value.empty()) value.pop_back();
    const std::string limits = DescribeLimits(field.limits);
    absl::StrAppend(out, name, "  ", ShortType(field.target), value.empty() ? "" : " = ", value,
                    limits.empty() ? "" : ", ", limits, "\n");
    AppendWrapped(field.help, out);
  }
}

}  // namespace

namespace internal {

absl::Status ReadFields(const ConfigNode& node, const std::vector<ConfigField>& fields) {
  return ReadGroup(node, node.path, fields);
}

ConfigNode NodeFromFields(const std::vector<ConfigField>& fields) {
  ConfigNode map{.kind = ConfigNode::Kind::kMap};
  for (const ConfigField& field : fields) {
    const auto to_node = [&](auto target) -> ConfigNode {
      if constexpr (std::is_same_v<decltype(target), std::monostate>) {
        return NodeFromFields(field.children);
      } else {
        return NodeFromValue(*target);
      }
    };
    ConfigNode value = std::visit(to_node, field.target);
    if (value.kind == ConfigNode::Kind::kNull) continue;
    map.entries.push_back({std::string(field.name), {}, std::move(value)});
  }
  return map;
}

std::string DescribeFields(const std::vector<ConfigField>& fields, absl::string_view prefix) {
  std::string out;
  AppendDescriptions(fields, std::string(prefix), &out);
  return out;
}

uint64_t HashNode(const ConfigNode& node) {
  const std::string dump = DumpYaml(node);
  return XXH64(dump.data(), dump.size(), 0);
}

}  // namespace internal
}  // namespace tessera
