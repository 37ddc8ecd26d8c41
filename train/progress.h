// How far a run is, for people: on a terminal one line that is redrawn in place,
//    12% |##-----------------|  1200/10000  eta 1:23:45  812 img/s  loss 2.345  lr 1.0e-03  ...
// else a plain line per interval, which reads well in a log file.
//
//   Progress progress(ProgressOptions{.total_steps = 10000, .unit = "img"});
//   for (...) progress.Update(report);
//   progress.Finish();
// Between the two, text for the terminal goes through Print.
#ifndef TESSERA_TRAIN_PROGRESS_H_
#define TESSERA_TRAIN_PROGRESS_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include "absl/strings/string_view.h"

namespace tessera::train {

// What one step did.
struct StepReport {
  int64_t step = 0;              // steps done, this one included
  int64_t items = 0;             // images or tokens of this step
  double seconds = 0;            // since the step before
  double data_wait_seconds = 0;  // of these, without data to work on
  double loss = 0;
  double learning_rate = std::numeric_limits<double>::quiet_NaN();  // NaN: there is none
  double flops = 0;        // of the model, forward and backward; 0 if not known
  int64_t peak_bytes = 0;  // most memory in use so far; 0 if not known
};

struct ProgressOptions {
  int64_t total_steps = 0;
  std::string unit = "img";            // of StepReport::items
  double peak_flops = 0;               // of the devices, per second; 0 if not known
  double plain_interval_seconds = 10;  // between lines when there is no terminal
};

// Numbers as the line shows them; rates are of the last few steps.
struct ProgressNumbers {
  int64_t step = 0;
  int64_t total_steps = 0;
  double steps_per_second = 0;
  double items_per_second = 0;
  std::string unit;
  double loss = 0;
  double learning_rate = std::numeric_limits<double>::quiet_NaN();  // NaN: there is none
  double data_wait = 0;                                             // fraction of the time
  double mfu = 0;          // model FLOPs over what the devices could do; 0 if not known
  int64_t peak_bytes = 0;  // 0 if not known
};

std::string ShortDuration(double seconds);  // "0:07", "1:23:45", "2d 03:04"; "?" if not known
std::string ShortCount(double count);       // "9.31", "812", "12.3k", "4.56M"
std::string ShortBytes(int64_t bytes);      // "812 MB", "1.23 GB", of 1000s

// A line of at most `width` columns: as many numbers as fit, the first ones of the list above
// first, and a bar over what is left. With `unicode` the bar has eighths of a column.
std::string TerminalLine(const ProgressNumbers& numbers, int width, bool unicode);
// All numbers, without a bar.
std::string PlainLine(const ProgressNumbers& numbers);

class Progress {
 public:
  // Where the lines go, and how wide it is: 0 if it is no terminal. Asked before each line, so that
  // a window may change its size.
  struct Output {
    std::function<void(absl::string_view)> write;
    std::function<int()> width;
    bool unicode = false;
  };
  static Output StandardError();
  static Output Nowhere() {
    return {[](absl::string_view) {}, [] { return 0; }};
  }

  explicit Progress(ProgressOptions options, Output output = StandardError());
  ~Progress() { Finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Redraws at most ten times a second, by the reports' own time.
  void Update(const StepReport& report);
  // Writes `text` as a line of its own above the bar.
  void Print(absl::string_view text);
  // Shows the last numbers and leaves them there. Later updates begin a new line.
  void Finish();

 private:
  void Draw();

  ProgressOptions options_;
  Output output_;
  ProgressNumbers numbers_;
  // Sums over the steps so far in which a step of k steps ago counts with weight 0.95^k.
  double steps_ = 0, items_ = 0, seconds_ = 0, data_wait_seconds_ = 0, flops_ = 0;
  double seconds_since_draw_ = 0;
  bool has_undrawn_numbers_ = false;
  bool has_line_ = false;  // the cursor stands behind a bar
};

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_PROGRESS_H_
