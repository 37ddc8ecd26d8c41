// The program, started as several ranks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "core/check.h"
#include "tests/train/program_testing.h"
#include "train/checkpoint.h"

namespace tessera::train {
namespace {

using testing::HasSubstr;

Arguments Training(const std::string& output, const Arguments& more = {}) {
  Arguments arguments = {
      "train", JoinPath(TESSERA_SOURCE_DIR, "configs/smoke.yaml"),
      "data.root=shards:" + JoinPath(TESSERA_SOURCE_DIR, "tests/data/cifar_smoke"),
      "output=" + output, "train.epochs=3"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

// `mpirun -n ranks tessera ARGUMENTS`, or without mpirun for one rank.
class Ranks : public testing::Test {
 protected:
  Process Start(int ranks, const Arguments& arguments) {
    if (ranks == 1) return Process(folder_, ProgramBody(TESSERA_PROGRAM, arguments));
    Arguments all = {"-n", absl::StrCat(ranks), TESSERA_PROGRAM};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return Process(folder_, ProgramBody(TESSERA_MPIRUN, all));
  }
  Process::Ended Run(int ranks, const Arguments& arguments) {
    return Start(ranks, arguments).Wait();
  }
  // Waits until the run has a best checkpoint; the process id of one of its ranks.
  pid_t RankInTraining(Process& mpirun, const std::string& output) {
    while (mpirun.IsRunning() && !PosixFileSystem().Exists(BestPath(output))) SleepMs(2);
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      std::ifstream status(entry.path() / "status");
      std::string line;
      while (std::getline(status, line)) {
        if (line == absl::StrCat("PPid:\t", mpirun.pid()))
          return std::stoi(entry.path().filename());
      }
    }
    LOG(FATAL) << "no ranks: " << mpirun.Wait().err;
  }
  TrainState StateOf(const std::string& output) {
    return Unwrap(OpenLatestCheckpoint(PosixFileSystem(), output)).state();
  }
  std::string Folder(const std::string& name) { return folder_ / name; }

  TempFolder folder_;
};

TEST_F(Ranks, TrainAsOneDoesAndResumeAsAnyNumber) {
  const Process::Ended alone = Run(1, Training(Folder("alone")));
  ASSERT_EQ(alone.code, 0) << alone.err;
  const Process::Ended together = Run(2, Training(Folder("together")));
  ASSERT_EQ(together.code, 0) << together.err;
  const TrainState a = StateOf(Folder("alone")), b = StateOf(Folder("together"));
  EXPECT_NEAR(a.mean_loss, b.mean_loss, 1e-4);
  EXPECT_NEAR(a.metrics.at("top1"), b.metrics.at("top1"), 1.01);  // one of a hundred pictures
  EXPECT_TRUE(PosixFileSystem().Exists(JoinPath(Folder("together"), "report.html")));

  // Stopped as two, continued as one.
  const Arguments endless = Training(Folder("stopped"), {"train.epochs=100000"});
  Process mpirun = Start(2, endless);
  kill(RankInTraining(mpirun, Folder("stopped")), SIGTERM);
  const Process::Ended stopped = mpirun.Wait();
  EXPECT_EQ(stopped.code, 75) << stopped.err;
  const size_t told_at = stopped.err.find("stopped and saved at step");
  EXPECT_NE(told_at, std::string::npos) << stopped.err;
  EXPECT_EQ(stopped.err.find("stopped and saved at step", told_at + 1), std::string::npos);
  const std::string newest =
      Unwrap(OpenLatestCheckpoint(PosixFileSystem(), Folder("stopped"))).path();
  Process resumed = Start(1, Training(Folder("stopped"), {"train.epochs=100000", "--resume"}));
  const std::string told = absl::StrCat("continuing ", newest);
  while (resumed.IsRunning() && !absl::StrContains(resumed.ErrSoFar(), told)) SleepMs(2);
  resumed.Signal(SIGTERM);
  const Process::Ended more = resumed.Wait();
  EXPECT_EQ(more.code, 75) << more.err;
}

TEST_F(Ranks, LoseNothingButTheStepsSinceTheLastCheckpointWhenOneIsKilled) {
  const Arguments training =
      Training(Folder("killed"), {"train.epochs=100000", "train.save_every_minutes=1e-6"});
  Process mpirun = Start(2, training);
  kill(RankInTraining(mpirun, Folder("killed")), SIGKILL);
  EXPECT_NE(mpirun.Wait().code, 0);  // and it does end
  const auto newest = [&] {
    return Unwrap(ListCheckpoints(PosixFileSystem(), Folder("killed"))).front();
  };
  const int64_t step = newest();
  Arguments resumed = training;
  resumed.push_back("--resume");
  Process again = Start(2, resumed);
  while (again.IsRunning() && newest() <= step) SleepMs(5);
  EXPECT_TRUE(again.IsRunning());
  again.Signal(SIGTERM);  // which mpirun passes on
  again.Wait();
}

TEST_F(Ranks, EvaluateTogether) {
  ASSERT_EQ(Run(1, Training(Folder("run"))).code, 0);
  const Arguments eval = {"eval", BestPath(Folder("run")), "--csv", Folder("classes.csv")};
  const auto csv = [&] { return Unwrap(PosixFileSystem().ReadFile(Folder("classes.csv"))); };
  const Process::Ended alone = Run(1, eval);
  const std::string csv_alone = csv();
  const Process::Ended together = Run(2, eval);
  ASSERT_EQ(together.code, 0) << together.err;
  // But for the seconds.
  EXPECT_EQ(together.out.substr(0, together.out.rfind('(')),
            alone.out.substr(0, alone.out.rfind('(')));
  EXPECT_EQ(csv(), csv_alone);
}

TEST_F(Ranks, RefuseABatchThatTheyCanNotShare) {
  const Process::Ended ended = Run(2, Training(Folder("odd"), {"train.batch_size=25"}));
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.err, HasSubstr("train.batch_size: found 25, expected a multiple of 2"));
  EXPECT_FALSE(PosixFileSystem().Exists(Folder("odd")));
}

TEST_F(Ranks, EndTogetherWhenTheFirstFindsARunInTheFolder) {
  ASSERT_EQ(Run(1, Training(Folder("run"))).code, 0);
  const Process::Ended ended = Run(2, Training(Folder("run")));
  EXPECT_EQ(ended.code, 2);
  EXPECT_THAT(ended.err, HasSubstr("already holds a run"));
}

}  // namespace
}  // namespace tessera::train
