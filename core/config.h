// Configuration: YAML read into plain structs that list their fields once.
//
//   struct OptimConfig {
//     double lr = 1e-3;
//     std::string name = "adamw";
//     template <class V>
//     void VisitFields(V& v) {
//       v("lr", lr, "peak learning rate", AtLeast(0.0));
//       v("name", name, "update rule", OneOf({"adamw", "sgd"}));
//     }
//   };
//
// From that list come reading, type and range checks, overrides (`optim.lr=3e-4`), the help text,
// the resolved dump and the hash. Field types: bool, int64_t, double, std::string, std::vector of
// the last three, another such struct, and ConfigNode for a part that is read later. Errors look
// like
//   configs/a.yaml:12:3: unknown key 'wieght_decay' in optim; did you mean 'weight_decay'?
#ifndef TESSERA_CORE_CONFIG_H_
#define TESSERA_CORE_CONFIG_H_

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "core/config_node.h"
#include "core/status.h"

namespace tessera {

// What a value must satisfy; for a list, what each element must.
struct FieldLimits {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool excludes_min = false;
  bool excludes_max = false;
  std::vector<std::string> choices;  // of strings; empty allows any
};

inline FieldLimits AtLeast(double min) { return {.min = min}; }
inline FieldLimits MoreThan(double min) { return {.min = min, .excludes_min = true}; }
inline FieldLimits Between(double min, double max) { return {.min = min, .max = max}; }
// [min, max)
inline FieldLimits HalfOpen(double min, double max) {
  return {.min = min, .max = max, .excludes_max = true};
}
inline FieldLimits OneOf(std::vector<std::string> choices) {
  return {.choices = std::move(choices)};
}

// One entry of a struct's list: a value to read or write, or a nested struct with entries of its
// own.
struct ConfigField {
  using Target =
      std::variant<std::monostate, bool*, int64_t*, double*, std::string*, std::vector<int64_t>*,
                   std::vector<double>*, std::vector<std::string>*, ConfigNode*>;
  absl::string_view name;
  absl::string_view help;
  FieldLimits limits;
  Target target;                      // monostate for a nested struct
  std::vector<ConfigField> children;  // of a nested struct
};

// The visitor that VisitFields is given.
class FieldCollector {
 public:
  template <typename T>
  void operator()(absl::string_view name, T& value, absl::string_view help,
                  FieldLimits limits = {}) {
    ConfigField field{name, help, std::move(limits), {}, {}};
    if constexpr (requires(FieldCollector & v) { value.VisitFields(v); }) {
      FieldCollector nested;
      value.VisitFields(nested);
      field.children = std::move(nested.fields);
    } else {
      field.target = &value;
    }
    fields.push_back(std::move(field));
  }

  std::vector<ConfigField> fields;
};

// The fields of `config`; they point into it.
template <typename T>
std::vector<ConfigField> FieldsOf(T& config) {
  FieldCollector collector;
  config.VisitFields(collector);
  return std::move(collector.fields);
}

namespace internal {
absl::Status ReadFields(const ConfigNode& node, const std::vector<ConfigField>& fields);
ConfigNode NodeFromFields(const std::vector<ConfigField>& fields);
std::string DescribeFields(const std::vector<ConfigField>& fields, absl::string_view prefix);
uint64_t HashNode(const ConfigNode& node);
}  // namespace internal

// Sets the fields that `node` (a map, or null for none) names and keeps the others. On an error
// `*config` is unchanged.
template <typename T>
absl::Status ReadConfig(const ConfigNode& node, T* config) {
  T result = *config;
  RETURN_IF_ERROR(internal::ReadFields(node, FieldsOf(result)));
  *config = std::move(result);
  return absl::OkStatus();
}

// Reads a file with its `extends:` and overrides; see LoadConfigNode.
template <typename T>
absl::Status ReadConfigFile(const std::string& path, const std::vector<std::string>& overrides,
                            T* config) {
  ASSIGN_OR_RETURN(const ConfigNode node, LoadConfigNode(path, overrides));
  return ReadConfig(node, config);
}

// The whole configuration as a node.
template <typename T>
ConfigNode ConfigToNode(const T& config) {
  T copy = config;
  return internal::NodeFromFields(FieldsOf(copy));
}

// YAML that reads back to an equal `config`: doubles keep every bit.
template <typename T>
std::string DumpConfig(const T& config) {
  return DumpYaml(ConfigToNode(config));
}

// All fields for --help: dotted name, type, default, allowed values; below it the meaning.
template <typename T>
std::string DescribeConfig(absl::string_view prefix = "") {
  T defaults;
  return internal::DescribeFields(FieldsOf(defaults), prefix);
}

// XXH64 of the dump: the same on every machine and in every later run.
template <typename T>
uint64_t HashConfig(const T& config) {
  return internal::HashNode(ConfigToNode(config));
}

}  // namespace tessera

#endif  // TESSERA_CORE_CONFIG_H_
