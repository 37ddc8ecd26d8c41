// The same bits whatever the number of threads and workers, and wherever a run was interrupted.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "tests/faults/faults.h"
#include "tests/train/program_testing.h"
#include "train/checkpoint.h"

namespace {

// The step after which this thread's run is to be stopped; 0: none.
thread_local int64_t stop_after = 0;

}  // namespace

// Takes the place of the C library's function: sees a step in the log before what follows it.
ssize_t write(int fd, const void* data, size_t size) {
  const absl::string_view text(static_cast<const char*>(data), size);
  if (stop_after > 0 && absl::StartsWith(text, absl::StrCat("{\"step\":", stop_after, ",")) &&
      absl::StrContains(text, "train/loss")) {
    stop_after = 0;
    raise(SIGTERM);
  }
  return syscall(SYS_write, fd, data, size);
}

namespace tessera::train {
namespace {

constexpr int64_t kSteps = 20;

// What the runs train: whatever has a state or an order of its own.
struct Subject {
  std::string name;
  Arguments overrides;
  std::string model = "";  // YAML; empty: that of the smoke configuration
};
const std::vector<Subject>& Subjects() {
  static const auto* const subjects = new std::vector<Subject>{
      {"fp32", {"train.precision=fp32"}},
      {"bf16", {"train.precision=bf16"}},
      {"accumulated", {"train.accumulate=3", "train.checkpoint_blocks=true"}},
      // With running statistics.
      {"biformer",
       {"train.precision=fp32"},
       "{name: biformer, depth: [1, 2], embed_dim: [16, 32], head_dim: 8, mlp_ratios: [3, 2], "
       "n_win: [2, 2], topks: [2, -2], drop_path_rate: 0.2}"},
  };
  return *subjects;
}

class SameBits : public ::testing::TestWithParam<Subject> {
 protected:
  RunConfig Config(const std::string& name, const Arguments& more = {}) const {
    Arguments overrides = GetParam().overrides;
    overrides.insert(overrides.end(), {"train.batch_size=30", "train.epochs=2"});
    overrides.insert(overrides.end(), more.begin(), more.end());
    RunConfig config = SmokeConfig(folder_ / name, overrides);
    if (!GetParam().model.empty()) config.model = Unwrap(ParseYaml(GetParam().model, "test"));
    return config;
  }
  // Last and best checkpoint.
  std::string Bytes(const std::string& name) const {
    return CheckpointBytes(CheckpointPath(folder_ / name, kSteps)) +
           CheckpointBytes(BestPath(folder_ / name));
  }
  // As a process of its own, since the number of threads is that of the process.
  void RunProgram(const std::string& name, int threads, int workers) {
    const std::string file = absl::StrCat(name, ".yaml");
    folder_.Write(file, DumpConfig(Config(name, {absl::StrCat("data.workers=", workers)})));
    const Process::Ended ended =
        Process(folder_,
                ProgramBody(TESSERA_PROGRAM, {"train", folder_ / file},
                            {absl::StrCat("OMP_NUM_THREADS=", threads), "OMP_WAIT_POLICY=passive"}))
            .Wait();
    ASSERT_EQ(ended.code, 0) << ended.err;
  }

  TempFolder folder_;
};

TEST_P(SameBits, ForAnyNumberOfThreadsAndWorkers) {
  RunProgram("whole", 1, 0);
  const std::string expected = Bytes("whole");
  std::vector<std::pair<int, int>> cases = {{2, 1}, {4, 4}};
  if (faults::AllCases()) cases = {{1, 1}, {1, 4}, {2, 0}, {2, 1}, {2, 4}, {4, 0}, {4, 1}, {4, 4}};
  for (const auto& [threads, workers] : cases) {
    std::filesystem::remove_all(folder_ / "run");
    RunProgram("run", threads, workers);
    // The configurations differ in the workers only, which the state does not hold.
    EXPECT_TRUE(Bytes("run") == expected) << threads << " threads, " << workers << " workers";
  }
  faults::Report(absl::StrCat("1, 2, 4 threads with 0, 1, 4 workers, ", GetParam().name),
                 static_cast<int64_t>(cases.size()) + 1,
                 HasFailure() ? "FAILED" : "all state the same bits after 20 steps");
}

TEST_P(SameBits, WhereverARunWasInterrupted) {
  const auto run = [&](const std::string& name, int64_t stop, bool resume) {
    return Process(folder_,
                   [&] {
                     stop_after = stop;
                     return ExitCode(Train(Config(name), {.resume = resume}));
                   })
        .Wait();
  };
  ASSERT_EQ(run("whole", 0, false).code, 0);
  const std::string expected = Bytes("whole");
  const int64_t stride = faults::AllCases() ? 1 : 7;
  int64_t cases = 0;
  for (int64_t step = 3; step < kSteps + 3; step += stride) {
    const int64_t k = 1 + step % kSteps;
    const std::string name = absl::StrCat("stopped", k);
    const Process::Ended stopped = run(name, k, false);
    EXPECT_EQ(stopped.code, 75) << stopped.err;
    const Process::Ended ended = run(name, 0, true);
    ASSERT_EQ(ended.code, 0) << ended.err;
    EXPECT_TRUE(Bytes(name) == expected) << "stopped after step " << k;
    ++cases;
  }
  faults::Report(absl::StrCat("20 steps = k + resume + (20 - k), ", GetParam().name), cases,
                 HasFailure() ? "FAILED" : "all state the same bits");
}

INSTANTIATE_TEST_SUITE_P(Of, SameBits, ::testing::ValuesIn(Subjects()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tessera::train
