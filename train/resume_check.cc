#include "train/resume_check.h"

#include <map>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "core/config_node.h"
#include "core/status.h"
#include "train/config.h"

namespace tessera::train {
namespace {

const std::set<std::string>& KeysThatMayChange() {
  static const auto* const keys = new std::set<std::string>{"output",
                                                            "data.root",
                                                            "data.workers",
                                                            "data.prefetch",
                                                            "data.cache_mb",
                                                            "data.skip_bad",
                                                            "train.device",
                                                            "train.finetune",
                                                            "train.init_weights",
                                                            "train.eval_every_epochs",
                                                            "train.save_every_minutes",
                                                            "train.keep_checkpoints",
                                                            "train.log_every_steps"};
  return *keys;
}

// Every scalar and list under its dotted name.
void Flatten(const ConfigNode& node, const std::string& name,
             std::map<std::string, std::string>* flat) {
  if (node.kind != ConfigNode::Kind::kMap) {
    (*flat)[name] = DumpYaml(node);
    return;
  }
  for (const ConfigNode::Entry& entry : node.entries) {
    Flatten(entry.value, name.empty() ? entry.key : absl::StrCat(name, ".", entry.key), flat);
  }
}

std::string Text(const std::map<std::string, std::string>& flat, const std::string& key) {
  const auto found = flat.find(key);
  if (found == flat.end()) return "absent";
  return std::string(absl::StripAsciiWhitespace(found->second));
}

}  // namespace

absl::Status CheckResumable(absl::string_view saved, absl::string_view now) {
  ASSIGN_OR_RETURN(ConfigNode saved_node, ParseYaml(saved, "checkpoint"));
  // A setting that is newer than the checkpoint had its default.
  RunConfig with_defaults;
  if (ReadConfig(saved_node, &with_defaults).ok()) {
    ASSIGN_OR_RETURN(saved_node, ParseYaml(DumpConfig(with_defaults), "checkpoint"));
  }
  ASSIGN_OR_RETURN(const ConfigNode now_node, ParseYaml(now, "configuration"));
  std::map<std::string, std::string> before, after;
  Flatten(saved_node, "", &before);
  Flatten(now_node, "", &after);
  std::set<std::string> keys;
  for (const auto& [key, value] : before) keys.insert(key);
  for (const auto& [key, value] : after) keys.insert(key);
  std::vector<std::string> changes;
  for (const std::string& key : keys) {
    if (KeysThatMayChange().count(key) > 0 || Text(before, key) == Text(after, key)) continue;
    changes.push_back(absl::StrCat(key, " was ", Text(before, key), ", is ", Text(after, key)));
  }
  if (changes.empty()) return absl::OkStatus();
  return ConfigError(absl::StrCat(
      "the run to be continued had another configuration: ", absl::StrJoin(changes, "; "),
      ". To start a new run from its weights, use train.init_weights and another output"));
}

}  // namespace tessera::train
