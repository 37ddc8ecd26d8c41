// The program in unusual surroundings: it works, or says in one line why not.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/train/program_testing.h"

namespace tessera::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Environment : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { CHECK_EQ(chdir(TESSERA_SOURCE_DIR), 0); }
  Process::Ended Train(const std::string& output, const std::function<void()>& prepare,
                       const Arguments& more = {}) const {
    return Process(folder_, Body(output, prepare, more)).Wait();
  }
  std::function<int()> Body(const std::string& output, const std::function<void()>& prepare,
                            const Arguments& more = {}) const {
    Arguments arguments = {"train", "configs/smoke.yaml", "output=" + output, "train.epochs=1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return ProgramBody(TESSERA_PROGRAM, arguments, {}, prepare);
  }
  bool IsDone(const std::string& run) const {
    return PosixFileSystem().Exists(folder_ / JoinPath(run, "checkpoints/step_000000009"));
  }

  TempFolder folder_;
};

TEST_F(Environment, WithoutAHomeOrAnyVariableIsFine) {
  const Process::Ended ended = Train(folder_ / "run", [] {
    clearenv();
    setenv("OMP_NUM_THREADS", "1", 1);
  });
  EXPECT_EQ(ended.code, 0) << ended.err;
}

TEST_F(Environment, WithTerminalsOfAnySizeIsFine) {
  for (const unsigned short columns : {0, 1, 7, 40, 1000}) {  // NOLINT: the type is the system's
    const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    ASSERT_GE(terminal, 0);
    ASSERT_EQ(grantpt(terminal), 0);
    ASSERT_EQ(unlockpt(terminal), 0);
    const std::string name = ptsname(terminal), run = absl::StrCat("run", columns);
    const winsize size = {.ws_row = 1, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
    ASSERT_EQ(ioctl(terminal, TIOCSWINSZ, &size), 0);
    Process program(folder_, Body(folder_ / run, [&] {
                      const int side = open(name.c_str(), O_RDWR | O_NOCTTY);
                      for (int fd = 0; fd < 3; ++fd) dup2(side, fd);
                      close(side);
                    }));
    fcntl(terminal, F_SETFL, O_NONBLOCK);
    std::string shown;
    while (program.IsRunning()) {
      char text[4096];
      const ssize_t got = read(terminal, text, sizeof(text));
      if (got > 0) shown.append(text, static_cast<size_t>(got));
      if (got <= 0) SleepMs(1);
    }
    EXPECT_EQ(program.Wait().code, 0) << shown;
    EXPECT_TRUE(IsDone(run));
    close(terminal);
  }
}

TEST_F(Environment, WithoutStandardStreamsWritesNothingIntoOtherFiles) {
  const Process::Ended ended = Train(folder_ / "run", [] {
    for (int fd = 0; fd < 3; ++fd) close(fd);
  });
  EXPECT_EQ(ended.code, 0);
  EXPECT_TRUE(IsDone("run"));
  const Process::Ended again =
      Process(folder_, ProgramBody(TESSERA_PROGRAM, {"eval", folder_ / "run/best"})).Wait();
  EXPECT_EQ(again.code, 0) << again.err;
}

TEST_F(Environment, WithoutAReaderOfItsOutputGoesOn) {
  const Process::Ended ended = Train(folder_ / "run", [] {
    int ends[2];
    CHECK_EQ(pipe(ends), 0);
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
  });
  EXPECT_EQ(ended.code, 0) << ended.signal;
  EXPECT_TRUE(IsDone("run"));
}

TEST_F(Environment, WithAFolderThatCanNotBeWrittenSaysSoInOneLine) {
  std::filesystem::create_directories(folder_ / "locked");
  ASSERT_EQ(chmod((folder_ / "locked").c_str(), 0555), 0);
  ASSERT_EQ(chmod(folder_.path().c_str(), 0755), 0);
  const auto as_nobody = [] {
    if (getuid() == 0) CHECK_EQ(setuid(65534), 0);
  };
  for (const std::string output : {"locked", "locked/run"}) {
    const Process::Ended ended = Train(folder_ / output, as_nobody);
    EXPECT_EQ(ended.code, 1) << ended.err;
    EXPECT_THAT(ended.err, AllOf(HasSubstr(folder_ / "locked"), HasSubstr("Permission denied"),
                                 HasSubstr("check the owner and mode")));
    const std::string last = ended.err.substr(ended.err.find("tessera: "));
    EXPECT_EQ(std::count(last.begin(), last.end(), '\n'), 1) << ended.err;
  }
}

TEST_F(Environment, WithoutMemoryEndsWithATableOfWhatHoldsIt) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need the address space that this test takes away";
#endif
  const Process::Ended ended =
      Train(folder_ / "run",
            [] {
              const rlimit limit = {rlim_t{900} << 20, rlim_t{900} << 20};
              CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
            },
            {"data.image_size=128", "train.batch_size=256", "data.workers=1", "data.prefetch=1"});
  EXPECT_EQ(ended.code, 4) << ended.signal << ended.err;
  EXPECT_THAT(ended.err, AllOf(HasSubstr("tessera: out of memory: "), HasSubstr("\n  parameters "),
                               HasSubstr("\n  gradients "), HasSubstr("\n  optimizer "),
                               HasSubstr("\n  activations "), HasSubstr("\n  workspace "),
                               HasSubstr("train.")));
}

}  // namespace
}  // namespace tessera::train
