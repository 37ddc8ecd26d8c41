#include "train/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace tessera::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ShortNumbers, AreReadable) {
  EXPECT_EQ(ShortDuration(0), "0:00");
  EXPECT_EQ(ShortDuration(59.6), "1:00");
  EXPECT_EQ(ShortDuration(3599), "59:59");
  EXPECT_EQ(ShortDuration(5025), "1:23:45");
  EXPECT_EQ(ShortDuration(86400 * 2 + 3 * 3600 + 4 * 60), "2d 03:04");
  for (const double unknown : {-1.0, std::nan(""), 1e300, std::numeric_limits<double>::infinity()})
    EXPECT_EQ(ShortDuration(unknown), "?");
  EXPECT_EQ(ShortCount(0), "0.00");
  EXPECT_EQ(ShortCount(9.306), "9.31");
  EXPECT_EQ(ShortCount(99.96), "100");
  EXPECT_EQ(ShortCount(999.6), "1.00k");
  EXPECT_EQ(ShortCount(12345), "12.3k");
  EXPECT_EQ(ShortCount(4.56e6), "4.56M");
  EXPECT_EQ(ShortCount(1e30), "1000000000000000P");
  EXPECT_EQ(ShortCount(std::nan("")), "nan");
  EXPECT_EQ(ShortBytes(1), "1.00 B");
  EXPECT_EQ(ShortBytes(1234567890), "1.23 GB");
}

ProgressNumbers Typical() {
  return {.step = 1200,
          .total_steps = 10000,
          .steps_per_second = 2,
          .items_per_second = 812.3,
          .unit = "img",
          .loss = 2.34567,
          .learning_rate = 1e-3,
          .data_wait = 0.02,
          .mfu = 0.413,
          .peak_bytes = 1500000000};
}

int Columns(absl::string_view line) {
  int columns = 0;
  for (const char c : line) columns += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  return columns;
}

TEST(TerminalLine, ShowsEverythingWhenThereIsRoom) {
  EXPECT_EQ(TerminalLine(Typical(), 120, false),
            " 12% |##-----------------|  1200/10000  eta 1:13:20  812 img/s  loss 2.346  lr "
            "1.00e-03  data 2%  mfu 41.3%  mem 1.50 GB");
  EXPECT_EQ(TerminalLine(Typical(), 50, true),
            " 12% |██▏               |  1200/10000  eta 1:13:20");
}

TEST(TerminalLine, NeverExceedsTheWidthAndOnlyGainsFields) {
  for (const bool unicode : {false, true}) {
    size_t num_spaces = 0;
    for (int width = 0; width < 200; ++width) {
      const std::string line = TerminalLine(Typical(), width, unicode);
      EXPECT_LE(Columns(line), width);
      const size_t last_bar = line.rfind('|');
      const size_t spaces = static_cast<size_t>(std::count(
          line.begin() + (last_bar == std::string::npos ? 0 : static_cast<int64_t>(last_bar)),
          line.end(), ' '));
      if (width >= 17) {
        EXPECT_GE(spaces, num_spaces) << width;
        num_spaces = spaces;
      }
    }
  }
}

TEST(TerminalLine, TheBarIsFullAtTheEndOnly) {
  ProgressNumbers numbers = Typical();
  for (const bool unicode : {false, true}) {
    numbers.step = 9999;
    EXPECT_THAT(TerminalLine(numbers, 17, unicode),
                HasSubstr(unicode ? " 99% |█████████▉|" : " 99% |#########-|"));
    for (const int64_t step : {10000, 12345}) {
      numbers.step = step;
      EXPECT_THAT(TerminalLine(numbers, 17, unicode),
                  HasSubstr(unicode ? "100% |██████████|" : "100% |##########|"));
    }
    numbers.step = 0;
    EXPECT_THAT(TerminalLine(numbers, 17, unicode),
                HasSubstr(unicode ? "  0% |          |" : "  0% |----------|"));
  }
  numbers.total_steps = 0;
  EXPECT_THAT(TerminalLine(numbers, 17, false), HasSubstr("  0%"));
}

TEST(PlainLine, LeavesOutWhatIsNotKnown) {
  ProgressNumbers numbers = Typical();
  EXPECT_EQ(PlainLine(numbers),
            "12%  step 1200/10000  eta 1:13:20  812 img/s  loss 2.346  lr 1.00e-03  data 2%  mfu "
            "41.3%  mem 1.50 GB");
  numbers.mfu = 0;
  numbers.peak_bytes = 0;
  numbers.steps_per_second = 0;
  EXPECT_EQ(PlainLine(numbers),
            "12%  step 1200/10000  eta ?  812 img/s  loss 2.346  lr 1.00e-03  data 2%");
}

struct Screen {
  Progress::Output Output(int width) {
    return {[this](absl::string_view text) { writes.emplace_back(text); },
            [width] { return width; }, false};
  }
  std::vector<std::string> writes;
};

TEST(Progress, WritesAPlainLinePerIntervalAndOneAtTheEnd) {
  Screen screen;
  {
    Progress progress(
        {.total_steps = 7, .unit = "tok", .peak_flops = 200, .plain_interval_seconds = 3},
        screen.Output(0));
    for (int64_t step = 1; step <= 7; ++step) {
      progress.Update({.step = step,
                       .items = 32,
                       .seconds = 1,
                       .data_wait_seconds = 0.25,
                       .loss = 1.5,
                       .learning_rate = 0.1,
                       .flops = 50});
    }
    progress.Print("evaluated");
  }
  EXPECT_THAT(
      screen.writes,
      ElementsAre(
          "42%  step 3/7  eta 0:04  32.0 tok/s  loss 1.500  lr 1.00e-01  data 25%  mfu 25.0%\n",
          "85%  step 6/7  eta 0:01  32.0 tok/s  loss 1.500  lr 1.00e-01  data 25%  mfu 25.0%\n",
          "evaluated\n",
          "100%  step 7/7  eta 0:00  32.0 tok/s  loss 1.500  lr 1.00e-01  data 25%  mfu 25.0%\n"));
}

TEST(Progress, NeverUsesMoreThanTheWholeMachine) {
  Screen screen;
  Progress progress({.total_steps = 3, .peak_flops = 40, .plain_interval_seconds = 1},
                    screen.Output(0));
  progress.Update({.step = 1, .items = 1, .seconds = 1, .flops = 50});
  progress.Update({.step = 2, .items = 1, .seconds = 1, .flops = 10});
  EXPECT_THAT(screen.writes, ElementsAre(HasSubstr("mfu 100.0%"), HasSubstr("mfu 59.0%")));
}

TEST(Progress, RedrawsOneLineOnATerminalTenTimesASecond) {
  Screen screen;
  Progress progress({.total_steps = 100}, screen.Output(30));
  for (int64_t step = 1; step <= 9; ++step)
    progress.Update({.step = step, .items = 1, .seconds = 0.025});
  EXPECT_THAT(screen.writes, ElementsAre("\r  4% |---------------|  4/100\x1b[K",
                                         "\r  8% |#--------------|  8/100\x1b[K"));
  screen.writes.clear();
  progress.Print("saved");
  EXPECT_THAT(screen.writes,
              ElementsAre("\r\x1b[Ksaved\n", "\r  9% |#--------------|  9/100\x1b[K"));
  screen.writes.clear();
  progress.Finish();
  progress.Finish();
  EXPECT_THAT(screen.writes, ElementsAre("\n"));
}

TEST(Progress, RatesFollowTheLastSteps) {
  Screen screen;
  Progress progress({.total_steps = 1000, .plain_interval_seconds = 0}, screen.Output(0));
  for (int64_t step = 1; step <= 200; ++step) {
    progress.Update({.step = step, .items = 100, .seconds = step <= 100 ? 10.0 : 1.0});
  }
  EXPECT_THAT(screen.writes[99], HasSubstr("eta 2:30:00  10.0 img/s"));
  EXPECT_THAT(screen.writes[199], HasSubstr("img/s"));
  EXPECT_THAT(screen.writes[199], HasSubstr("eta 14:"));
}

}  // namespace
}  // namespace tessera::train
