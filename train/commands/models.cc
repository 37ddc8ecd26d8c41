#include <cstdio>

#include "models/registry.h"
#include "train/commands/commands.h"

namespace tessera::train {
namespace {

struct Row {
  int64_t parameters = 0;
  int64_t macs = 0;
};

absl::StatusOr<Row> Measure(const ModelVariant& variant) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ImageModel> model, variant.create(ConfigNode()));
  Row row;
  model->VisitParameters(
      [&](const std::string&, Parameter& p) { row.parameters += p.shape().numel(); });
  for (const StageCost& cost : model->Costs(variant.image_size, variant.image_size)) {
    row.macs += cost.macs;
  }
  return row;
}

absl::Status PrintModels() {
  std::printf("%-16s %14s %6s %10s %8s\n", "model", "parameters", "size", "GMACs", "top-1 %");
  for (const ModelVariant* variant : AllModels()) {
    ASSIGN_OR_RETURN(const Row row, Measure(*variant));
    std::printf("%-16s %14lld %6lld %10.2f %8s\n", variant->name.c_str(),
                static_cast<long long>(row.parameters), static_cast<long long>(variant->image_size),
                static_cast<double>(row.macs) * 1e-9, variant->top1.c_str());
  }
  std::printf("\ntop-1: as published for ImageNet-1K by the models' authors.\n");
  return absl::OkStatus();
}

absl::Status PrintOptions(const std::string& name) {
  ASSIGN_OR_RETURN(const ModelVariant* variant, FindModel(name));
  std::printf("Options of %s under `model:`, with the defaults of the family %s:\n\n%s",
              name.c_str(), variant->family.c_str(), variant->describe().c_str());
  return absl::OkStatus();
}

}  // namespace

void AddModelsCommand(CLI::App& app, absl::Status* result) {
  CLI::App* command = app.add_subcommand(
      "models", "Lists every model: parameters, multiply-adds, published accuracy");
  auto name = std::make_shared<std::string>();
  command->add_option("name", *name, "show the options of this one instead");
  command->callback(
      [name, result] { *result = name->empty() ? PrintModels() : PrintOptions(*name); });
}

}  // namespace tessera::train
