// Runs that are killed while they write checkpoints.
#include <gtest/gtest.h>

#include "absl/strings/match.h"
#include "core/random.h"
#include "tests/faults/faults.h"
#include "tests/train/program_testing.h"
#include "train/checkpoint.h"

namespace tessera::train {
namespace {

bool IsBeingWritten(const std::string& directory) {
  const auto names = PosixFileSystem().ListDirectory(directory);
  if (!names.ok()) return false;
  for (const std::string& name : *names) {
    if (absl::StartsWith(name, ".tmp-")) return true;
  }
  return false;
}

class Kills : public ::testing::Test {
 protected:
  static int Run(const RunConfig& config, bool resume) {
    return ExitCode(Train(config, {.resume = resume}));
  }
  // The newest checkpoint, after a look at all of them.
  int64_t CheckAndFindNewest(const std::string& output) {
    FileSystem& fs = PosixFileSystem();
    const std::vector<int64_t> steps = Unwrap(ListCheckpoints(fs, output));
    for (const int64_t step : steps) {
      const auto checkpoint = Checkpoint::Open(fs, CheckpointPath(output, step));
      EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    }
    if (fs.Exists(BestPath(output)) || fs.Exists(JoinPath(output, ".old-best"))) {
      const auto best = Checkpoint::Open(fs, BestPath(output));
      EXPECT_TRUE(best.ok()) << best.status();
    }
    return steps.empty() ? 0 : steps.front();
  }

  TempFolder folder_;
};

TEST_F(Kills, LeaveWholeCheckpointsFromWhichTheRunGoesOnToTheSameBits) {
  const int64_t kills = faults::Cases(8, 500);
  const Arguments epochs = {absl::StrCat("train.epochs=", faults::Cases(3, 120)),
                            "train.save_every_minutes=1e-9", "train.eval_every_epochs=0.4"};
  const RunConfig whole = SmokeConfig(folder_ / "whole", epochs);
  ASSERT_EQ(Process(folder_, [&] { return Run(whole, false); }).Wait().code, 0);
  const int64_t last_step = CheckAndFindNewest(whole.output);
  folder_.Write("other/notes.txt", "mine");

  RandomStream random(7, Purpose::kTest);
  int64_t newest = 0, half_written = 0, finished = 0;
  RunConfig config = SmokeConfig(folder_ / "run0", epochs);
  for (int64_t kill = 0; kill < kills; ++kill) {
    Process run(folder_, [&] { return Run(config, newest > 0); });
    const std::string checkpoints = JoinPath(config.output, "checkpoints");
    while (run.IsRunning() && !IsBeingWritten(checkpoints)) SleepMs(0.2);
    SleepMs(random.Uniform(0, 40));
    run.Signal(SIGKILL);
    const Process::Ended ended = run.Wait();
    half_written += IsBeingWritten(checkpoints) || IsBeingWritten(config.output);
    const int64_t now = CheckAndFindNewest(config.output);
    ASSERT_GE(now, newest) << "kill " << kill << "\n" << ended.err;
    newest = now;
    if (ended.code != 0) {
      ASSERT_EQ(ended.signal, SIGKILL) << ended.err;
      folder_.Write(JoinPath(BaseName(config.output), "notes.txt"), "mine");
      continue;
    }
    // It was faster: another one begins.
    EXPECT_EQ(CheckpointBytes(CheckpointPath(config.output, last_step)),
              CheckpointBytes(CheckpointPath(whole.output, last_step)));
    config = SmokeConfig(folder_ / absl::StrCat("run", ++finished), epochs);
    newest = 0;
  }
  const Process::Ended last = Process(folder_, [&] { return Run(config, newest > 0); }).Wait();
  ASSERT_EQ(last.code, 0) << last.err;
  EXPECT_TRUE(CheckpointBytes(CheckpointPath(config.output, last_step)) ==
              CheckpointBytes(CheckpointPath(whole.output, last_step)));
  EXPECT_EQ(Unwrap(PosixFileSystem().ReadFile(folder_ / "other/notes.txt")), "mine");
  EXPECT_FALSE(IsBeingWritten(JoinPath(config.output, "checkpoints")));
  EXPECT_GT(half_written, 0);
  faults::Report("SIGKILL while checkpoints are written", kills,
                 absl::StrCat(half_written,
                              " left a half-written one; every checkpoint whole, the runs went on "
                              "to the same bits"));
}

}  // namespace
}  // namespace tessera::train
