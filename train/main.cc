// tessera: trains, evaluates and exports models. Exit codes: see core/status.h.
#include <cstdio>
#include <string>

#include "core/check.h"
#include "core/status.h"
#include "train/commands/commands.h"

namespace tessera::train {
namespace {

int Main(int argc, char** argv) {
  FLAGS_logtostderr = true;
  FLAGS_log_prefix = false;
  google::InitGoogleLogging(argv[0]);
  CLI::App app("Trains vision transformers from YAML files, evaluates and exports them.",
               "tessera");
  app.require_subcommand(1);
  app.set_version_flag("--version", TESSERA_VERSION);
  absl::Status result;
  AddTrainCommand(app, &result);
  AddEvalCommand(app, &result);
  AddPredictCommand(app, &result);
  AddExportCommand(app, &result);
  AddModelsCommand(app, &result);
  AddSummaryCommand(app, &result);
  AddBenchCommand(app, &result);
  AddDataCommand(app, &result);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // --help and --version end the parsing, too.
    return app.exit(e) == 0 ? 0 : ExitCode(ConfigError(""));
  }
  if (!result.ok()) {
    std::fprintf(stderr, "tessera: %s\n", std::string(result.message()).c_str());
  }
  return ExitCode(result);
}

}  // namespace
}  // namespace tessera::train

int main(int argc, char** argv) { return tessera::train::Main(argc, argv); }
