#include "train/line_chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace tessera::train {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(LineChart, DrawsALineFromCornerToCorner) {
  const std::string svg = LineChart("Loss", {{"", {{0, 0}, {10, 5}}}});
  EXPECT_THAT(svg, HasSubstr("d='M58.0 232.0L448.0 34.0'"));
  EXPECT_THAT(svg, HasSubstr(">Loss</text>"));
  for (const char* tick : {">0</text>", ">10</text>", ">5</text>"}) {
    EXPECT_THAT(svg, HasSubstr(tick));
  }
}

TEST(LineChart, NamesSeveralSeries) {
  const std::string svg = LineChart("", {{"a<b", {{0, 1}}}, {"c", {{1, 2}}}});
  EXPECT_THAT(svg, HasSubstr(">a&lt;b</text>"));
  EXPECT_THAT(svg, HasSubstr(">c</text>"));
}

TEST(LineChart, TakesAnyNumbers) {
  EXPECT_THAT(LineChart("", {}), HasSubstr("no values yet"));
  EXPECT_THAT(LineChart("", {{"", {{1, NAN}, {2, INFINITY}}}}), HasSubstr("no values yet"));
  for (const double value : {0.0, 3.0, -1e30, 1e-30}) {
    const std::string svg = LineChart("", {{"", {{5, value}, {7, NAN}}}});
    EXPECT_THAT(svg, Not(HasSubstr("nan"))) << value;
    EXPECT_THAT(svg, Not(HasSubstr("inf"))) << value;
    EXPECT_THAT(svg, HasSubstr("class='line'"));
  }
}

TEST(LineChart, ThinsOutLongSeries) {
  Series series;
  for (int i = 0; i < 100'000; ++i) series.points.emplace_back(i, std::sin(i * 1e-3));
  const std::string svg = LineChart("", {series});
  EXPECT_LT(std::count(svg.begin(), svg.end(), 'L'), 401);
}

}  // namespace
}  // namespace tessera::train
