#include "train/signals.h"

#include <unistd.h>

#include <csignal>

namespace tessera::train {
namespace {

volatile std::sig_atomic_t requested_signal = 0;

void SetHandler(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

void Note(int signal) {
  static constexpr char kText[] = "\nstopping after this step; once more stops at once\n";
  SetHandler(SIG_DFL);
  requested_signal = signal;
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kText, sizeof(kText) - 1);
}

}  // namespace

StopSignals::StopSignals() {
  requested_signal = 0;
  SetHandler(Note);
}

StopSignals::~StopSignals() { SetHandler(SIG_DFL); }

bool StopSignals::requested() const { return requested_signal != 0; }

}  // namespace tessera::train
