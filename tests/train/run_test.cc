#include "train/run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>

#include "absl/strings/match.h"
#include "core/check.h"
#include "core/file_system.h"
#include "core/json.h"
#include "tests/train/program_testing.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/model_setup.h"

namespace {

// Told of everything that the program writes, so that a test can stop a run at an exact place.
std::function<void(absl::string_view)> on_write;

}  // namespace

// Takes the place of the C library's function.
ssize_t write(int fd, const void* data, size_t size) {
  if (on_write) on_write({static_cast<const char*>(data), size});
  return syscall(SYS_write, fd, data, size);
}

namespace tessera::train {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kSteps = 18;  // of two epochs
constexpr int64_t kStepsPerEpoch = 9;

class Runs : public ::testing::Test {
 protected:
  void TearDown() override { on_write = nullptr; }

  RunConfig Config(const std::string& name, const std::vector<std::string>& more = {}) const {
    return SmokeConfig(folder_ / name, more);
  }

  // As if SIGTERM came when the log says that `step` is done, which is before what follows the
  // step: an evaluation, or a save.
  static void StopAfter(int64_t step) {
    on_write = [line = absl::StrCat("{\"step\":", step, ",")](absl::string_view text) {
      if (absl::StartsWith(text, line) && absl::StrContains(text, "train/loss")) {
        on_write = nullptr;
        raise(SIGTERM);
      }
    };
  }

  std::string Contents(const std::string& path) const {
    return Unwrap(PosixFileSystem().ReadFile(folder_ / path));
  }

  void ExpectSameCheckpoint(const std::string& a, const std::string& b) const {
    EXPECT_TRUE(CheckpointBytes(folder_ / a) == CheckpointBytes(folder_ / b))
        << a << " and " << b << " differ";
  }
  // Last and best checkpoint and everything that was measured.
  void ExpectSameRun(const std::string& a, const std::string& b) const {
    ExpectSameCheckpoint(CheckpointPath(a, kSteps), CheckpointPath(b, kSteps));
    ExpectSameCheckpoint(BestPath(a), BestPath(b));
    EXPECT_EQ(Measured(a), Measured(b));
  }

  // The lines of the log, without what depends on the clock.
  std::vector<std::string> Measured(const std::string& run) const {
    std::vector<std::string> lines;
    std::ifstream file(folder_ / JoinPath(run, "metrics.jsonl"));
    for (std::string text; std::getline(file, text);) {
      Json line = Unwrap(ParseJson(text, "metrics.jsonl"));
      line.erase("time");
      line.erase("train/images_per_second");
      lines.push_back(line.dump());
    }
    return lines;
  }

  TempFolder folder_;
};

TEST_F(Runs, StoppedAnywhereAndResumedGiveTheSameBitsAsUninterruptedOnes) {
  ASSERT_TRUE(Train(Config("whole"), {}).ok());
  ASSERT_EQ(Measured("whole").size(), kSteps + 2);
  // In the middle of an epoch; at its end, which cuts its evaluation short; at the very end.
  for (const int64_t step : {int64_t{1}, int64_t{5}, kStepsPerEpoch, kStepsPerEpoch + 1, kSteps}) {
    SCOPED_TRACE(step);
    const std::string name = absl::StrCat("stopped", step);
    StopAfter(step);
    const absl::Status stopped = Train(Config(name), {});
    EXPECT_EQ(ExitCode(stopped), 75);
    EXPECT_THAT(std::string(stopped.message()),
                HasSubstr(absl::StrCat("saved at step ", step, " of 18")));
    ASSERT_TRUE(Train(Config(name), {.resume = true}).ok());
    ExpectSameRun("whole", name);
  }
}

TEST_F(Runs, StoppedTwiceAndResumedWithOtherWorkersGiveTheSameBits) {
  ASSERT_TRUE(Train(Config("whole", {"data.workers=0"}), {}).ok());
  StopAfter(3);
  EXPECT_EQ(ExitCode(Train(Config("cut", {"data.workers=4"}), {})), 75);
  StopAfter(12);
  EXPECT_EQ(ExitCode(Train(Config("cut", {"data.workers=1"}), {.resume = true})), 75);
  ASSERT_TRUE(Train(Config("cut", {"data.workers=2"}), {.resume = true}).ok());
  ExpectSameRun("whole", "cut");
}

TEST_F(Runs, ThatAreDoneResumeToTheSameEnd) {
  ASSERT_TRUE(Train(Config("run"), {}).ok());
  const std::string path = CheckpointPath("run", kSteps);
  const std::string model = Contents(JoinPath(path, "model.safetensors"));
  const std::vector<std::string> measured = Measured("run");
  ASSERT_TRUE(Train(Config("run"), {.resume = true}).ok());
  EXPECT_EQ(Contents(JoinPath(path, "model.safetensors")), model);
  EXPECT_EQ(Measured("run"), measured);
}

TEST_F(Runs, FallBackToTheCheckpointBeforeADamagedOneAndSaySo) {
  const std::vector<std::string> often = {"train.save_every_minutes=1e-9"};
  ASSERT_TRUE(Train(Config("whole"), {}).ok());
  StopAfter(7);
  EXPECT_EQ(ExitCode(Train(Config("run", often), {})), 75);
  const std::string damaged = folder_ / JoinPath(CheckpointPath("run", 7), "optimizer.safetensors");
  std::filesystem::resize_file(damaged, std::filesystem::file_size(damaged) - 1);
  testing::internal::CaptureStderr();
  const absl::Status resumed = Train(Config("run", often), {.resume = true});
  const std::string said = testing::internal::GetCapturedStderr();
  ASSERT_TRUE(resumed.ok()) << resumed;
  EXPECT_THAT(said, AllOf(HasSubstr("step_000000007: damaged: optimizer.safetensors"),
                          HasSubstr("continuing " + (folder_ / CheckpointPath("run", 6)))));
  ExpectSameRun("whole", "run");
}

TEST_F(Runs, KeepAsManyCheckpointsAsTold) {
  ASSERT_TRUE(
      Train(Config("run", {"train.save_every_minutes=1e-9", "train.keep_checkpoints=3"}), {}).ok());
  EXPECT_THAT(Unwrap(ListCheckpoints(PosixFileSystem(), folder_ / "run")),
              ElementsAre(kSteps, kSteps - 1, kSteps - 2));
}

TEST_F(Runs, KeepTheBestWeightsThatGiveTheAccuracyOfTheLog) {
  RunConfig config = Config("run", {"train.epochs=4", "train.eval_every_epochs=0.5"});
  ASSERT_TRUE(Train(config, {}).ok());
  double best = -1;
  int64_t evaluations = 0;
  for (const std::string& text : Measured("run")) {
    const Json line = Unwrap(ParseJson(text, "line"));
    if (!line.contains("val/top1")) continue;
    ++evaluations;
    best = std::max(best, line["val/top1"].get<double>());
  }
  EXPECT_EQ(evaluations, 8);  // after steps 5, 10, ..., 35 and 36, the last one
  const LoadedModel loaded = Unwrap(LoadModel(folder_ / BestPath("run"), "", {}));
  const auto source = Unwrap(OpenSource(config.data, Split::kVal));
  const auto loader = Unwrap(Loader::Create(config.data, *source, {.batch_size = 32}));
  const Evaluation again = Unwrap(
      Evaluate(*loaded.model, loaded.compute_dtype, Device::kCpu, *loader, nullptr, nullptr));
  EXPECT_EQ(again.samples, 100);
  EXPECT_EQ(again.top1(), best);
}

TEST_F(Runs, RefuseToResumeUnderAnotherConfigurationAndNameItsKeys) {
  StopAfter(2);
  EXPECT_EQ(ExitCode(Train(Config("run"), {})), 75);
  const absl::Status refused = Train(
      Config("run", {"optim.lr=1e-4", "train.batch_size=16", "data.workers=1"}), {.resume = true});
  EXPECT_EQ(ExitCode(refused), 2);
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("optim.lr was 0.003, is 1e-04"),
                    HasSubstr("train.batch_size was 32, is 16"), Not(HasSubstr("workers"))));
}

TEST_F(Runs, RefuseAFolderThatHoldsOneOrThatIsInUse) {
  StopAfter(2);
  EXPECT_EQ(ExitCode(Train(Config("run"), {})), 75);
  const absl::Status again = Train(Config("run"), {});
  EXPECT_EQ(ExitCode(again), 2);
  EXPECT_THAT(std::string(again.message()), AllOf(HasSubstr("step 2"), HasSubstr("--resume")));

  const auto lock = PosixFileSystem().LockDirectory(folder_ / "run");
  ASSERT_TRUE(lock.ok());
  const absl::Status locked = Train(Config("run"), {.resume = true});
  EXPECT_EQ(ExitCode(locked), 2);
  EXPECT_THAT(std::string(locked.message()), HasSubstr("run"));
}

TEST_F(Runs, ResumeOfNothingIsAnErrorThatLeavesNothing) {
  const absl::Status status = Train(Config("none"), {.resume = true});
  EXPECT_EQ(ExitCode(status), 3);
  EXPECT_THAT(std::string(status.message()), HasSubstr("without --resume"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "none"));
}

TEST_F(Runs, DryRunWritesNothing) {
  ASSERT_TRUE(Train(Config("dry"), {.dry_run = true}).ok());
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
}

TEST_F(Runs, ThatDivergeEndWithANumericErrorAndKeepTheirCheckpoints) {
  const absl::Status status =
      Train(Config("run", {"optim.lr=1e5", "optim.name=sgd", "optim.clip_grad=0", "train.epochs=6",
                           "train.save_every_minutes=1e-9"}),
            {});
  EXPECT_EQ(ExitCode(status), 5) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("the weights went back at step"), HasSubstr("operation ")));
  const Checkpoint checkpoint = Unwrap(OpenLatestCheckpoint(PosixFileSystem(), folder_ / "run"));
  EXPECT_GE(checkpoint.state().step, 1);
}

// Many steps are spikes. Where the run stands in a row of them is part of its state.
TEST_F(Runs, ThatSkipStepsResumeToTheSameBits) {
  const std::vector<std::string> skip = {"train.skip_loss_above=1.005"};
  ASSERT_TRUE(Train(Config("whole", skip), {}).ok());
  const Checkpoint whole =
      Unwrap(Checkpoint::Open(PosixFileSystem(), folder_ / CheckpointPath("whole", kSteps)));
  EXPECT_LT(whole.state().updates, kSteps);
  EXPECT_GT(whole.state().updates, 1);
  for (const int64_t step : {2, 7, 11, 16}) {
    const std::string name = absl::StrCat("stopped", step);
    StopAfter(step);
    EXPECT_EQ(ExitCode(Train(Config(name, skip), {})), 75);
    ASSERT_TRUE(Train(Config(name, skip), {.resume = true}).ok());
    ExpectSameRun("whole", name);
  }
}

TEST_F(Runs, StartFromTheWeightsOfAnotherAlsoWithAnotherClassifier) {
  ASSERT_TRUE(Train(Config("first", {"train.epochs=1"}), {}).ok());
  const std::string init = "train.init_weights=" + (folder_ / BestPath("first"));
  EXPECT_TRUE(Train(Config("second", {init}), {}).ok());
  const absl::Status other = Train(Config("third", {init, "model.num_classes=12"}), {});
  EXPECT_EQ(ExitCode(other), 3) << other;
  EXPECT_THAT(std::string(other.message()),
              AllOf(HasSubstr("head.fc"), HasSubstr("train.finetune")));
  EXPECT_TRUE(
      Train(Config("fourth", {init, "model.num_classes=12", "train.finetune=true"}), {}).ok());
  const absl::Status wide =
      Train(Config("fifth", {init, "model.embed_dims=[32, 64]", "train.finetune=true"}), {});
  EXPECT_EQ(ExitCode(wide), 3) << wide;
  EXPECT_THAT(std::string(wide.message()), Not(HasSubstr("train.finetune")));
}

TEST_F(Runs, ResumeWithoutTheWeightsThatTheyStartedFrom) {
  ASSERT_TRUE(Train(Config("first", {"train.epochs=1"}), {}).ok());
  const std::string init = "train.init_weights=" + (folder_ / BestPath("first"));
  StopAfter(2);
  EXPECT_EQ(ExitCode(Train(Config("second", {init}), {})), 75);
  std::filesystem::remove_all(folder_ / "first");
  EXPECT_TRUE(Train(Config("second", {init}), {.resume = true}).ok());
}

}  // namespace
}  // namespace tessera::train
