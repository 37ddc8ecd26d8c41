// Runs that are asked to stop at any moment.
#include <gtest/gtest.h>

#include <fstream>

#include "core/json.h"
#include "core/random.h"
#include "tests/faults/faults.h"
#include "tests/train/program_testing.h"
#include "train/checkpoint.h"

namespace tessera::train {
namespace {

class Signals : public ::testing::Test {
 protected:
  // The last step in the log; 0 without one.
  static int64_t LoggedStep(const std::string& output) {
    std::ifstream file(JoinPath(output, "metrics.jsonl"));
    int64_t step = 0;
    for (std::string line; std::getline(file, line);) {
      const auto json = ParseJson(line, "log");
      if (json.ok()) step = std::max(step, json->at("step").get<int64_t>());
    }
    return step;
  }
  static int64_t SavedStep(const std::string& output) {
    const auto latest = OpenLatestCheckpoint(PosixFileSystem(), output);
    return latest.ok() ? latest->state().step : -1;
  }

  TempFolder folder_;
};

// Three runs in turn: one trains, one evaluates most of the time, one saves.
TEST_F(Signals, AtAnyMomentSaveWithoutTheLossOfAStep) {
  const int64_t signals = faults::Cases(9, 100);
  const Arguments sorts[] = {{"train.eval_every_epochs=100"},
                             {"train.eval_every_epochs=0.1"},
                             {"train.eval_every_epochs=100", "train.save_every_minutes=1e-9"}};
  RandomStream random(11, Purpose::kTest);
  int64_t stopped = 0, before_start = 0, finished = 0;
  for (int64_t i = 0; i < signals; ++i) {
    SCOPED_TRACE(i);
    Arguments arguments = sorts[i % 3];
    arguments.push_back(absl::StrCat("train.epochs=", 100));
    const RunConfig config = SmokeConfig(folder_ / absl::StrCat("run", i % 3), arguments);
    const bool resume = SavedStep(config.output) >= 0;
    const int64_t before = LoggedStep(config.output);
    Process run(folder_, [&] { return ExitCode(Train(config, {.resume = resume})); });
    // Mostly after the first step, sometimes while it starts.
    while (i % 8 != 7 && run.IsRunning() && LoggedStep(config.output) <= before) SleepMs(1);
    SleepMs(random.Uniform(0, 60));
    run.Signal(i % 2 == 0 ? SIGTERM : SIGINT);
    const Process::Ended ended = run.Wait();
    if (ended.code == 75) {
      ++stopped;
      EXPECT_GE(SavedStep(config.output), LoggedStep(config.output)) << ended.err;
    } else if (ended.code == 0) {
      ++finished;
      std::filesystem::remove_all(config.output);
    } else {
      // It had not begun: nothing is changed.
      ++before_start;
      EXPECT_GE(ended.signal, 0) << ended.code << ended.err;
      EXPECT_EQ(LoggedStep(config.output), before);
      EXPECT_EQ(SavedStep(config.output) >= 0, resume);
    }
  }
  EXPECT_GT(stopped, signals / 2);
  faults::Report("SIGINT or SIGTERM while training, evaluating, saving", signals,
                 absl::StrCat(stopped, " saved with exit code 75 and no step lost, ", finished,
                              " were done, ", before_start, " had not begun"));
}

}  // namespace
}  // namespace tessera::train
