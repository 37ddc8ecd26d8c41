#include "train/line_chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace tessera::train {
namespace {

constexpr int kWidth = 460, kHeight = 260;
constexpr int kLeft = 58, kRight = 12, kTop = 34, kBottom = 28;
constexpr size_t kMaxPoints = 400;
constexpr const char* kColours[] = {"#2563eb", "#dc2626", "#059669", "#d97706"};

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void Add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  // A range of one value gets some room on both sides.
  void Widen() {
    if (high > low) return;
    const double room = low == 0 ? 1 : std::abs(low) * 0.1;
    low -= room;
    high += room;
  }
};

// 1, 2 or 5 times a power of ten, so that about `count` steps fill the range.
double RoundStep(const Range& range, int count) {
  const double raw = (range.high - range.low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw) return factor * power;
  }
  return 10 * power;
}

std::vector<std::pair<double, double>> Thinned(const Series& series) {
  std::vector<std::pair<double, double>> finite, thinned;
  for (const auto& [x, y] : series.points) {
    if (std::isfinite(x) && std::isfinite(y)) finite.emplace_back(x, y);
  }
  const size_t group = (finite.size() + kMaxPoints - 1) / kMaxPoints;
  for (size_t i = 0; i < finite.size(); i += group) {
    const size_t n = std::min(group, finite.size() - i);
    double x = 0, y = 0;
    for (size_t k = i; k < i + n; ++k) {
      x += finite[k].first;
      y += finite[k].second;
    }
    thinned.emplace_back(x / static_cast<double>(n), y / static_cast<double>(n));
  }
  return thinned;
}

// From values to pixels.
struct Frame {
  Range x, y;

  double Px(double value) const {
    return kLeft + (value - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight);
  }
  double Py(double value) const {
    return kHeight - kBottom - (value - y.low) / (y.high - y.low) * (kHeight - kTop - kBottom);
  }
};

std::string Axes(const Frame& frame) {
  std::string svg;
  const double dy = RoundStep(frame.y, 5);
  for (double v = std::ceil(frame.y.low / dy) * dy; v <= frame.y.high + dy * 1e-9; v += dy) {
    absl::StrAppendFormat(&svg,
                          "<path class='grid' d='M%d %.1fH%d'/><text class='tick' x='%d' y='%.1f' "
                          "text-anchor='end'>%.4g</text>",
                          kLeft, frame.Py(v), kWidth - kRight, kLeft - 6, frame.Py(v) + 4,
                          std::abs(v) < dy * 1e-9 ? 0.0 : v);
  }
  const double dx = RoundStep(frame.x, 6);
  for (double v = std::ceil(frame.x.low / dx) * dx; v <= frame.x.high + dx * 1e-9; v += dx) {
    absl::StrAppendFormat(&svg,
                          "<text class='tick' x='%.1f' y='%d' text-anchor='middle'>%.6g</text>",
                          frame.Px(v), kHeight - 10, v);
  }
  return svg;
}

}  // namespace

std::string HtmlEscape(const std::string& text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}, {"'", "&#39;"}});
}

std::string LineChart(const std::string& title, const std::vector<Series>& series) {
  std::string svg = absl::StrFormat(
      "<svg class='chart' viewBox='0 0 %d %d' role='img'><text class='title' x='%d' "
      "y='18'>%s</text>",
      kWidth, kHeight, kLeft, HtmlEscape(title));
  std::vector<std::vector<std::pair<double, double>>> lines;
  Frame frame;
  for (const Series& s : series) {
    lines.push_back(Thinned(s));
    for (const auto& [x, y] : lines.back()) {
      frame.x.Add(x);
      frame.y.Add(y);
    }
  }
  if (frame.x.low > frame.x.high) {
    return absl::StrFormat("%s<text class='tick' x='%d' y='%d'>no values yet</text></svg>\n", svg,
                           kLeft, kHeight / 2);
  }
  frame.x.Widen();
  frame.y.Widen();
  svg += Axes(frame);
  int legend_x = kWidth - kRight;
  for (size_t i = 0; i < lines.size(); ++i) {
    const char* colour = kColours[i % std::size(kColours)];
    std::string path;
    for (const auto& [x, y] : lines[i]) {
      absl::StrAppendFormat(&path, "%s%.1f %.1f", path.empty() ? "M" : "L", frame.Px(x),
                            frame.Py(y));
    }
    absl::StrAppendFormat(&svg, "<path class='line' stroke='%s' d='%s'/>", colour, path);
    for (const auto& [x, y] : lines[i]) {
      if (lines[i].size() > 40) break;
      absl::StrAppendFormat(&svg, "<circle fill='%s' cx='%.1f' cy='%.1f' r='2'/>", colour,
                            frame.Px(x), frame.Py(y));
    }
    if (series.size() == 1) continue;
    absl::StrAppendFormat(
        &svg, "<text class='legend' fill='%s' x='%d' y='18' text-anchor='end'>%s</text>", colour,
        legend_x, HtmlEscape(series[i].name));
    legend_x -= 14 + 7 * static_cast<int>(series[i].name.size());
  }
  return svg + "</svg>\n";
}

}  // namespace tessera::train
