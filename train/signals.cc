#include "train/signals.h"

#include <csignal>

namespace tessera::train {
namespace {

volatile std::sig_atomic_t requested_signal = 0;

}  // namespace

StopSignals::StopSignals() {
  requested_signal = 0;
  struct sigaction action = {};
  action.sa_handler = [](int signal) { requested_signal = signal; };
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

StopSignals::~StopSignals() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

bool StopSignals::requested() const { return requested_signal != 0; }

}  // namespace tessera::train
