// A long run needs no more memory and no more files than a short one.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "tests/faults/faults.h"
#include "tests/train/program_testing.h"

namespace {

struct Sample {
  double hours;
  double mib;  // resident
  int64_t files;
};

struct Samples {
  absl::Time start = absl::Now();
  int64_t steps = 0;
  std::vector<Sample> list;

  void AddStep() {
    constexpr int64_t kStepsPerSample = 50;
    if (++steps % kStepsPerSample != 0) return;
    int64_t pages = 0, resident = 0;
    std::ifstream("/proc/self/statm") >> pages >> resident;
    int64_t files = 0;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/self/fd")) {
      ++files;
    }
    list.push_back(
        {absl::ToDoubleHours(absl::Now() - start),
         static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) / 0x1p20,
         files});
  }
};
Samples* samples = nullptr;

}  // namespace

// Takes the place of the C library's function: every step writes a line to the log.
ssize_t write(int fd, const void* data, size_t size) {
  if (samples != nullptr &&
      absl::StrContains({static_cast<const char*>(data), size}, "\"train/loss\"")) {
    samples->AddStep();
  }
  return syscall(SYS_write, fd, data, size);
}

namespace tessera::train {
namespace {

// Least squares of MiB over hours.
double MibPerHour(const std::vector<Sample>& list) {
  double h = 0, m = 0, hh = 0, hm = 0;
  const auto n = static_cast<double>(list.size());
  for (const Sample& s : list) {
    h += s.hours / n;
    m += s.mib / n;
  }
  for (const Sample& s : list) {
    hh += (s.hours - h) * (s.hours - h);
    hm += (s.hours - h) * (s.mib - m);
  }
  return hm / hh;
}

TEST(Growth, IsNoneInALongRun) {
  TempFolder folder;
  const int64_t steps = faults::Cases(900, 20000);
  // 9 steps an epoch; evaluations and saves are part of it.
  const RunConfig config = SmokeConfig(
      folder / "run", {absl::StrCat("train.epochs=", steps / 9 + 1), "train.eval_every_epochs=20",
                       "train.save_every_minutes=0.05", "data.cache_mb=0"});
  Samples collected;
  samples = &collected;
  const absl::Status status = Train(config, {});
  samples = nullptr;
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_GE(collected.steps, steps);
  // The first part warms up caches.
  std::vector<Sample> list(collected.list.begin() + static_cast<int64_t>(collected.list.size()) / 4,
                           collected.list.end());
  for (const Sample& s : list) EXPECT_EQ(s.files, list.front().files) << s.hours;
  const double growth = list.back().mib - list.front().mib, slope = MibPerHour(list);
  // In a short run, a leak of some kilobytes per step shows; the memory of a process grows by
  // pages.
  EXPECT_LT(growth, 2.0);
  if (faults::AllCases()) {
    EXPECT_LT(slope, 1.0);
  }
  faults::Report("steps of a tiny model", collected.steps,
                 absl::StrFormat("memory %+.3f MiB/h (%.2f to %.2f MiB), %d open files throughout",
                                 slope, list.front().mib, list.back().mib, list.front().files));
}

}  // namespace
}  // namespace tessera::train
