// A run whose files can not be read just now, as when a network disk hangs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "tests/train/program_testing.h"
#include "train/checkpoint.h"

namespace {

std::atomic<bool> hang{false};
std::atomic<int> hanging{0};

}  // namespace

// Takes the place of the C library's function.
ssize_t pread(int fd, void* data, size_t size, off_t offset) {
  while (hang) {
    hanging = 1;
    tessera::train::SleepMs(1);
  }
  return syscall(SYS_pread64, fd, data, size, offset);
}

namespace tessera::train {
namespace {

TEST(DataWait, EndsWithASavedRunWhenAskedTo) {
  TempFolder folder;
  for (const int signal : {SIGTERM, SIGINT}) {
    const RunConfig config = SmokeConfig(folder / absl::StrCat("run", signal),
                                         {"train.epochs=100", "data.workers=2", "data.cache_mb=0"});
    std::thread friend_of_the_run([&] {
      const std::string log = JoinPath(config.output, "metrics.jsonl");
      const auto bytes = [&] {
        const auto info = PosixFileSystem().Stat(log);
        return info.ok() ? info->bytes : 0;
      };
      while (bytes() < 500) SleepMs(1);
      hang = true;
      while (hanging == 0) SleepMs(1);
      SleepMs(300);  // until what was loaded ahead is used up
      kill(getpid(), signal);
      // The state is saved while the disk still hangs.
      while (!PosixFileSystem().Exists(JoinPath(config.output, "checkpoints"))) SleepMs(1);
      SleepMs(100);
      hang = false;
      hanging = 0;
    });
    const absl::Status status = Train(config, {});
    friend_of_the_run.join();
    EXPECT_EQ(ExitCode(status), 75) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("--resume"));
    const auto saved = OpenLatestCheckpoint(PosixFileSystem(), config.output);
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_GE(saved->state().step, 1);
  }
}

}  // namespace
}  // namespace tessera::train
