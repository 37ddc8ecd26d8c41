#include "train/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace tessera::train {
namespace {

constexpr double kDecay = 0.95;
constexpr double kRedrawSeconds = 0.1;
constexpr int kMinBarColumns = 10;
constexpr int kMaxBarColumns = 40;

double Fraction(const ProgressNumbers& numbers) {
  if (numbers.total_steps <= 0) return 0;
  return std::clamp(static_cast<double>(numbers.step) / static_cast<double>(numbers.total_steps),
                    0.0, 1.0);
}

std::string Bar(double fraction, int columns, bool unicode) {
  static constexpr const char* kEighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int eighths = static_cast<int>(fraction * 8 * columns);
  const int full = unicode ? eighths / 8 : static_cast<int>(fraction * columns);
  std::string bar;
  for (int i = 0; i < full; ++i) bar += unicode ? "█" : "#";
  if (full < columns) bar += unicode ? kEighths[eighths % 8] : "-";
  for (int i = full + 1; i < columns; ++i) bar += unicode ? " " : "-";
  return bar;
}

// All numbers but the percentage, the most wanted first.
std::vector<std::string> Fields(const ProgressNumbers& n) {
  const double steps_left = static_cast<double>(std::max<int64_t>(0, n.total_steps - n.step));
  const double eta = n.steps_per_second > 0 ? steps_left / n.steps_per_second : NAN;
  std::vector<std::string> fields = {
      absl::StrFormat("%d/%d", n.step, n.total_steps),
      absl::StrCat("eta ", ShortDuration(eta)),
      absl::StrCat(ShortCount(n.items_per_second), " ", n.unit, "/s"),
      absl::StrFormat("loss %#.4g", n.loss),
  };
  if (!std::isnan(n.learning_rate)) fields.push_back(absl::StrFormat("lr %.2e", n.learning_rate));
  fields.push_back(absl::StrFormat("data %.0f%%", 100 * n.data_wait));
  if (n.mfu > 0) fields.push_back(absl::StrFormat("mfu %.1f%%", 100 * n.mfu));
  if (n.peak_bytes > 0) fields.push_back(absl::StrCat("mem ", ShortBytes(n.peak_bytes)));
  return fields;
}

std::string Percent(const ProgressNumbers& numbers) {
  return absl::StrFormat("%3d%%", static_cast<int>(100 * Fraction(numbers)));
}

void WriteToStandardError(absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // nobody reads it; no reason to stop a run
    text.remove_prefix(static_cast<size_t>(written));
  }
}

bool LocaleIsUtf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    const std::string lower = absl::AsciiStrToLower(value);
    return absl::StrContains(lower, "utf-8") || absl::StrContains(lower, "utf8");
  }
  return false;
}

}  // namespace

std::string ShortDuration(double seconds) {
  constexpr double kMaxSeconds = 1000.0 * 86400;
  if (!(seconds >= 0) || seconds >= kMaxSeconds) return "?";
  const auto s = static_cast<int64_t>(std::lround(seconds));
  if (s < 3600) return absl::StrFormat("%d:%02d", s / 60, s % 60);
  if (s < 86400) return absl::StrFormat("%d:%02d:%02d", s / 3600, s / 60 % 60, s % 60);
  return absl::StrFormat("%dd %02d:%02d", s / 86400, s / 3600 % 24, s / 60 % 60);
}

std::string ShortCount(double count) {
  const char* unit = "";
  for (const char* next : {"k", "M", "G", "T", "P"}) {
    if (!(std::abs(count) >= 999.5)) break;
    count /= 1000;
    unit = next;
  }
  const double size = std::abs(count);
  return absl::StrFormat("%.*f%s", size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2, count, unit);
}

std::string ShortBytes(int64_t bytes) {
  std::string text = ShortCount(static_cast<double>(bytes));
  const bool has_unit = absl::ascii_isalpha(static_cast<unsigned char>(text.back()));
  text.insert(text.size() - (has_unit ? 1 : 0), 1, ' ');
  return text + "B";
}

std::string TerminalLine(const ProgressNumbers& numbers, int width, bool unicode) {
  std::string line = Percent(numbers);
  if (width < static_cast<int>(line.size())) return "";
  const int bar_columns = kMinBarColumns + 3;  // with its ends and the space before it
  const bool has_bar = width >= static_cast<int>(line.size()) + bar_columns;
  int left = width - static_cast<int>(line.size()) - (has_bar ? bar_columns : 0);
  std::string tail;
  for (const std::string& field : Fields(numbers)) {
    const int columns = static_cast<int>(field.size()) + 2;
    if (columns > left) break;
    absl::StrAppend(&tail, "  ", field);
    left -= columns;
  }
  if (has_bar) {
    const int columns = std::min(kMaxBarColumns, kMinBarColumns + left);
    absl::StrAppend(&line, " |", Bar(Fraction(numbers), columns, unicode), "|");
  }
  return line + tail;
}

std::string PlainLine(const ProgressNumbers& numbers) {
  return absl::StrCat(absl::StripLeadingAsciiWhitespace(Percent(numbers)), "  step ",
                      absl::StrJoin(Fields(numbers), "  "));
}

Progress::Output Progress::StandardError() {
  const auto width = [] {
    winsize size = {};
    if (isatty(STDERR_FILENO) == 0) return 0;
    const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? static_cast<int>(size.ws_col) : 80;
  };
  return {WriteToStandardError, width, LocaleIsUtf8()};
}

Progress::Progress(ProgressOptions options, Output output)
    : options_(std::move(options)), output_(std::move(output)) {
  numbers_.total_steps = options_.total_steps;
  numbers_.unit = options_.unit;
}

void Progress::Update(const StepReport& report) {
  const auto add = [](double* sum, double value) { *sum = kDecay * *sum + value; };
  add(&steps_, 1);
  add(&items_, static_cast<double>(report.items));
  add(&seconds_, report.seconds);
  add(&data_wait_seconds_, report.data_wait_seconds);
  add(&flops_, report.flops);
  numbers_.step = report.step;
  numbers_.loss = report.loss;
  numbers_.learning_rate = report.learning_rate;
  numbers_.peak_bytes = report.peak_bytes;
  if (seconds_ > 0) {
    numbers_.steps_per_second = steps_ / seconds_;
    numbers_.items_per_second = items_ / seconds_;
    numbers_.data_wait = data_wait_seconds_ / seconds_;
    if (options_.peak_flops > 0) {
      // A machine that was busy while its peak was measured can do better than that.
      const double flops_per_second = flops_ / seconds_;
      options_.peak_flops = std::max(options_.peak_flops, flops_per_second);
      numbers_.mfu = flops_per_second / options_.peak_flops;
    }
  }
  seconds_since_draw_ += report.seconds;
  has_undrawn_numbers_ = true;
  const double interval = output_.width() > 0 ? kRedrawSeconds : options_.plain_interval_seconds;
  if (seconds_since_draw_ >= interval) Draw();
}

void Progress::Draw() {
  seconds_since_draw_ = 0;
  has_undrawn_numbers_ = false;
  const int width = output_.width();
  if (width == 0) {
    output_.write(PlainLine(numbers_) + "\n");
    return;
  }
  // One write, and no erasing before the new text is there: no flicker. The last column stays
  // free, since some terminals wrap when it is filled.
  output_.write(absl::StrCat("\r", TerminalLine(numbers_, width - 1, output_.unicode), "\x1b[K"));
  has_line_ = true;
}

void Progress::Print(absl::string_view text) {
  output_.write(absl::StrCat(has_line_ ? "\r\x1b[K" : "", text, "\n"));
  if (has_line_) Draw();
}

void Progress::Finish() {
  if (has_undrawn_numbers_) Draw();
  if (std::exchange(has_line_, false)) output_.write("\n");
}

}  // namespace tessera::train
