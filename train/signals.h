// Stopping on request: Ctrl-C and SIGTERM let a run finish its step and save.
#ifndef TESSERA_TRAIN_SIGNALS_H_
#define TESSERA_TRAIN_SIGNALS_H_

namespace tessera::train {

// While it lives, the first SIGINT or SIGTERM is noted instead of ending the process; a second one
// ends it as usual. At most one at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();  // back to the system's behaviour
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool requested() const;
};

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_SIGNALS_H_
