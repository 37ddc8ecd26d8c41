#include "train/commands/model_argument.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "models/registry.h"

namespace tessera::train {

absl::StatusOr<RunConfig> ConfigOfModelArgument(const std::string& argument,
                                                const std::vector<std::string>& overrides) {
  RunConfig config;
  if (absl::EndsWith(argument, ".yaml") || absl::EndsWith(argument, ".yml")) {
    RETURN_IF_ERROR(ReadConfigFile(argument, overrides, &config));
    return config;
  }
  ASSIGN_OR_RETURN(const ModelVariant* variant, FindModel(argument));
  ASSIGN_OR_RETURN(ConfigNode node,
                   ParseYaml(absl::StrCat("model: {name: ", argument,
                                          "}\ndata: {image_size: ", variant->image_size, "}\n"),
                             argument));
  for (const std::string& text : overrides) RETURN_IF_ERROR(ApplyOverride(text, &node));
  RETURN_IF_ERROR(ReadConfig(node, &config));
  return config;
}

}  // namespace tessera::train
