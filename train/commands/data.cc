#include <unistd.h>

#include "absl/strings/str_format.h"
#include "data/check.h"
#include "train/commands/commands.h"
#include "train/config.h"

namespace tessera::train {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
};

absl::Status RunCheck(const Options& options) {
  RunConfig config;
  RETURN_IF_ERROR(ReadConfigFile(options.config, options.overrides, &config));
  const bool terminal = isatty(STDERR_FILENO) != 0;
  const DataReport report =
      CheckData(config.data, {Split::kTrain, Split::kVal}, [&](int64_t done, int64_t total) {
        if (terminal) absl::FPrintF(stderr, "\r%d/%d pictures", done, total);
      });
  if (terminal) absl::FPrintF(stderr, "\r\033[K");
  absl::PrintF("%s", report.Text());
  return report.ok() ? absl::OkStatus() : DataError("the data set has errors, listed above");
}

}  // namespace

void AddDataCommand(CLI::App& app, absl::Status* result) {
  CLI::App* data = app.add_subcommand("data", "Looks after data sets");
  data->require_subcommand(1);
  CLI::App* check =
      data->add_subcommand("check", "Reads every picture and names what is bad, before training");
  auto options = std::make_shared<Options>();
  check->add_option("config", options->config, "configuration file")->required();
  check->add_option("overrides", options->overrides, "changes to it, as in data.root=/data/pets");
  check->callback([options, result] { *result = RunCheck(*options); });
}

}  // namespace tessera::train
