#include "core/check.h"
#include "train/commands/commands.h"
#include "train/run.h"

namespace tessera::train {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  TrainFlags flags;
};

absl::Status RunTrain(const Options& options) {
  RunConfig config;
  RETURN_IF_ERROR(ReadConfigFile(options.config, options.overrides, &config));
  return Train(config, options.flags);
}

}  // namespace

void AddTrainCommand(CLI::App& app, absl::Status* result) {
  CLI::App* command = app.add_subcommand("train", "Trains a model as a YAML file describes it");
  auto options = std::make_shared<Options>();
  command->add_option("config", options->config, "configuration file, as in configs/")->required();
  command->add_option("overrides", options->overrides,
                      "changes to it, as in optim.lr=3e-4 train.epochs=10");
  CLI::Option* resume = command->add_flag("--resume", options->flags.resume,
                                          "continue the newest checkpoint of the run's folder");
  command
      ->add_flag("--dry-run", options->flags.dry_run,
                 "check configuration and data, take one step, write nothing")
      ->excludes(resume);
  command->footer([] {
    return "\nConfiguration (`tessera models NAME` shows what stands under model):\n\n" +
           DescribeConfig<RunConfig>();
  });
  command->callback([options, result] { *result = RunTrain(*options); });
}

}  // namespace tessera::train
