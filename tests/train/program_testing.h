// Runs of the program, or of a function, in a process of their own.
#ifndef TESSERA_TESTS_TRAIN_PROGRAM_TESTING_H_
#define TESSERA_TESTS_TRAIN_PROGRAM_TESTING_H_

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/check.h"
#include "core/file_system.h"
#include "tests/data/data_testing.h"
#include "train/run.h"

namespace tessera::train {

using Arguments = std::vector<std::string>;

class Process {
 public:
  struct Ended {
    int code = -1;    // exit code, -1 if a signal ended it
    int signal = -1;  // that signal
    std::string out, err;
  };

  // `body` returns the exit code; its output goes to files in the folder. This process must not
  // have used OpenMP: a copy of it would wait for threads that it does not have.
  Process(const TempFolder& folder, const std::function<int()>& body)
      : out_(folder / "stdout"), err_(folder / "stderr") {
    pid_ = fork();
    CHECK_GE(pid_, 0);
    if (pid_ > 0) return;
    dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
    dup2(open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666), STDOUT_FILENO);
    dup2(open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666), STDERR_FILENO);
    _exit(body());
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  pid_t pid() const { return pid_; }
  void Signal(int signal) const { kill(pid_, signal); }
  bool IsRunning() {
    if (pid_ > 0 && waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = 0;
    return pid_ > 0;
  }
  std::string ErrSoFar() const { return PosixFileSystem().ReadFile(err_).value_or(""); }
  Ended Wait() {
    if (pid_ > 0) waitpid(pid_, &status_, 0);
    pid_ = 0;
    Ended ended;
    if (WIFEXITED(status_)) ended.code = WEXITSTATUS(status_);
    if (WIFSIGNALED(status_)) ended.signal = WTERMSIG(status_);
    ended.out = Unwrap(PosixFileSystem().ReadFile(out_));
    ended.err = Unwrap(PosixFileSystem().ReadFile(err_));
    return ended;
  }

 private:
  std::string out_, err_;
  pid_t pid_;
  int status_ = 0;
};

// To be the body of a process: becomes the program, after `prepare` (may be null).
inline std::function<int()> ProgramBody(const std::string& program, const Arguments& arguments,
                                        const Arguments& environment = {},
                                        const std::function<void()>& prepare = nullptr) {
  return [=] {
    std::vector<char*> argv = {const_cast<char*>(program.c_str())};
    for (const std::string& argument : arguments)
      argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    for (const std::string& variable : environment) putenv(const_cast<char*>(variable.c_str()));
    if (prepare) prepare();
    execv(program.c_str(), argv.data());
    return 127;
  };
}

inline void SleepMs(double milliseconds) {
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(milliseconds));
}

// The smoke configuration, writing to `output`, with everything that has a state, or draws random
// numbers, switched on.
inline RunConfig SmokeConfig(const std::string& output, const Arguments& more = {}) {
  Arguments overrides = {"output=" + output,    "train.epochs=2",  "train.log_every_steps=1",
                         "train.ema_decay=0.9", "data.mixup=0.2",  "model.drop_path_rate=0.2",
                         "model.drop_rate=0.1", "data.reprob=0.25"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  RunConfig config;
  const absl::Status read =
      ReadConfigFile(JoinPath(TESSERA_SOURCE_DIR, "configs/smoke.yaml"), overrides, &config);
  CHECK(read.ok()) << read;
  config.data.root = "shards:" + JoinPath(TESSERA_SOURCE_DIR, "tests/data/cifar_smoke");
  return config;
}

// The files of a checkpoint that are the same for the same run, one after the other.
inline std::string CheckpointBytes(const std::string& path) {
  std::string bytes;
  for (const char* name :
       {"model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"}) {
    bytes += Unwrap(PosixFileSystem().ReadFile(JoinPath(path, name)));
  }
  return bytes;
}

}  // namespace tessera::train

#endif  // TESSERA_TESTS_TRAIN_PROGRAM_TESTING_H_
