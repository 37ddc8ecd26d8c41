// tessera: trains, evaluates and exports models. Exit codes: see core/status.h.
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/check.h"
#include "core/communicator.h"
#include "core/edit_distance.h"
#include "core/status.h"
#include "train/commands/commands.h"
#include "train/memory.h"

namespace tessera::train {
namespace {

// "tessera: train: config is required; `tessera train --help` describes ...", in one line.
std::string FailureMessage(const CLI::App* app, const CLI::Error& error) {
  std::string command = "tessera", where = "tessera: ";
  while (!app->get_subcommands().empty()) {
    app = app->get_subcommands().front();
    absl::StrAppend(&command, " ", app->get_name());
    absl::StrAppend(&where, app->get_name(), ": ");
  }
  std::string found(absl::StripAsciiWhitespace(error.what()));
  const std::vector<std::string> unknown = app->remaining();
  // A missing subcommand or argument is often an unknown one.
  if (!unknown.empty()) {
    std::vector<std::string> names;
    for (const CLI::App* other : app->get_subcommands({})) names.push_back(other->get_name());
    for (const CLI::Option* option : app->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
    found = absl::StrCat("unknown ", unknown.front()[0] == '-' ? "flag" : "command", " '",
                         unknown.front(), "'", DidYouMean(unknown.front(), names));
  }
  return absl::StrCat(where, found, "; see `", command, " --help`\n");
}

// Files that are opened later must not become the standard streams of a program that was started
// without them, and a reader that went away is no reason to stop.
void MakeStandardStreamsSafe() {
  int fd = 0;
  while (fd >= 0 && fd <= STDERR_FILENO) fd = open("/dev/null", O_RDWR);
  if (fd > STDERR_FILENO) close(fd);
  std::signal(SIGPIPE, SIG_IGN);
}

// Says why the program ends, once for all ranks where they end for the same reason.
void Report(const absl::Status& status) {
  const Communicator& ranks = Communicator::World();
  const bool is_agreed = absl::IsCancelled(status);
  if (!ranks.is_first()) {
    if (is_agreed) return;
    // What all of them found the first one tells, and ends the others meanwhile.
    absl::SleepFor(absl::Milliseconds(500));
  }
  std::fprintf(stderr, "tessera: %s\n", std::string(status.message()).c_str());
  // The others would wait for this one.
  if (!is_agreed) ranks.AbortOthers(ExitCode(status));
}

int Main(int argc, char** argv) {
  MakeStandardStreamsSafe();
  FLAGS_logtostderr = true;
  FLAGS_log_prefix = false;
  google::InitGoogleLogging(argv[0]);
  ExitWhenOutOfMemory();
  if (!Communicator::World().is_first()) FLAGS_minloglevel = google::WARNING;
  CLI::App app("Trains vision transformers from YAML files, evaluates and exports them.",
               "tessera");
  app.require_subcommand(1);
  app.failure_message(FailureMessage);
  app.set_version_flag("--version", TESSERA_VERSION);
  absl::Status result;
  AddTrainCommand(app, &result);
  AddEvalCommand(app, &result);
  AddPredictCommand(app, &result);
  AddExportCommand(app, &result);
  AddImportCommand(app, &result);
  AddModelsCommand(app, &result);
  AddSummaryCommand(app, &result);
  AddBenchCommand(app, &result);
  AddDataCommand(app, &result);
  if (argc == 1) {
    std::fputs(app.help().c_str(), stderr);
    return ExitCode(ConfigError(""));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    // --help and --version end the parsing, too.
    return app.exit(e) == 0 ? 0 : ExitCode(ConfigError(""));
  }
  if (!result.ok()) Report(result);
  return ExitCode(result);
}

}  // namespace
}  // namespace tessera::train

int main(int argc, char** argv) { return tessera::train::Main(argc, argv); }
