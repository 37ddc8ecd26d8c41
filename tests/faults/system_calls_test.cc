// Runs in which one system call fails, or all from one on, as on a full disk.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdio>

#include "absl/strings/match.h"
#include "tests/faults/faults.h"
#include "tests/train/program_testing.h"
#include "train/checkpoint.h"

namespace {

// Which of this thread's calls that change files fail.
struct Faults {
  bool on = false;
  int64_t calls = 0;
  int64_t fail_at = -1;
  bool and_all_later = false;

  bool Fails() {
    if (!on) return false;
    const int64_t call = calls++;
    const bool fails = fail_at >= 0 && (call == fail_at || (and_all_later && call > fail_at));
    if (fails) errno = ENOSPC;
    return fails;
  }
};
thread_local Faults system_calls;

}  // namespace

// These take the place of the C library's functions.
extern "C" {

ssize_t write(int fd, const void* data, size_t size) {
  if (fd > STDERR_FILENO && system_calls.Fails()) {
    // Half of it arrives.
    return size > 1 && !system_calls.and_all_later ? syscall(SYS_write, fd, data, size / 2) : -1;
  }
  return syscall(SYS_write, fd, data, size);
}

int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const auto mode = (flags & O_CREAT) != 0 ? va_arg(list, mode_t) : 0;
  va_end(list);
  if ((flags & (O_WRONLY | O_RDWR)) != 0 && system_calls.Fails()) return -1;
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

int fsync(int fd) { return system_calls.Fails() ? -1 : static_cast<int>(syscall(SYS_fsync, fd)); }

int rename(const char* from, const char* to) noexcept {
  return system_calls.Fails() ? -1 : static_cast<int>(syscall(SYS_rename, from, to));
}

int mkdir(const char* path, mode_t mode) noexcept {
  return system_calls.Fails() ? -1 : static_cast<int>(syscall(SYS_mkdir, path, mode));
}

int unlinkat(int directory, const char* path, int flags) noexcept {
  if (system_calls.Fails()) return -1;
  return static_cast<int>(syscall(SYS_unlinkat, directory, path, flags));
}

}  // extern "C"

namespace tessera::train {
namespace {

constexpr int64_t kSteps = 3;

class SystemCalls : public ::testing::Test {
 protected:
  RunConfig Config(const std::string& name) const {
    return SmokeConfig(folder_ / name,
                       {"train.epochs=1", "train.batch_size=100", "train.save_every_minutes=1e-9",
                        "train.keep_checkpoints=1", "data.workers=0"});
  }
  std::string LastBytes(const std::string& name) const {
    return CheckpointBytes(CheckpointPath(folder_ / name, kSteps));
  }

  TempFolder folder_;
};

TEST_F(SystemCalls, ThatFailAnywhereLeaveARunThatGoesOnToTheSameBits) {
  FLAGS_minloglevel = google::GLOG_ERROR;
  system_calls = {.on = true};
  ASSERT_TRUE(Train(Config("whole"), {}).ok());
  const int64_t calls = system_calls.calls;
  ASSERT_GT(calls, 100);
  const std::string expected = LastBytes("whole");
  folder_.Write("other.txt", "mine");
  const int64_t stride = faults::AllCases() ? 1 : calls / 6;
  int64_t cases = 0, ended = 0;
  for (const bool and_all_later : {false, true}) {
    for (int64_t position = and_all_later ? 0 : 1; position < calls; position += stride) {
      SCOPED_TRACE(absl::StrCat(position, " of ", calls, and_all_later ? " and later" : ""));
      std::filesystem::remove_all(folder_ / "run");
      system_calls = {.on = true, .fail_at = position, .and_all_later = and_all_later};
      const absl::Status status = Train(Config("run"), {});
      system_calls = {};
      ++cases;
      if (!status.ok()) {
        ++ended;
        EXPECT_TRUE(absl::StrContains(status.message(), folder_.path())) << status;
        const auto latest = OpenLatestCheckpoint(PosixFileSystem(), folder_ / "run");
        EXPECT_TRUE(latest.ok() || absl::IsNotFound(latest.status())) << latest.status();
        const absl::Status again = Train(Config("run"), {.resume = latest.ok()});
        ASSERT_TRUE(again.ok()) << again << " after " << status;
      }
      EXPECT_TRUE(LastBytes("run") == expected);
      const std::vector<std::string> left =
          Unwrap(PosixFileSystem().ListDirectory(folder_ / "run/checkpoints"));
      EXPECT_EQ(left, std::vector<std::string>{BaseName(CheckpointPath("", kSteps))}) << status;
      EXPECT_EQ(Unwrap(PosixFileSystem().ReadFile(folder_ / "other.txt")), "mine");
    }
  }
  EXPECT_GT(ended, 0);
  faults::Report("one system call of a run fails, or all from there on", cases,
                 absl::StrCat("all ", calls, " positions; ", ended,
                              " ended in an error that names the path; resumed to the same bits"));
}

}  // namespace
}  // namespace tessera::train
