// Curves as SVG, for pages that need no script.
#ifndef TESSERA_TRAIN_LINE_CHART_H_
#define TESSERA_TRAIN_LINE_CHART_H_

#include <string>
#include <utility>
#include <vector>

namespace tessera::train {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x does not fall; those not finite are left out
};

// An <svg> element to stand in HTML: axes with round numbers, a legend, a line for each series, of
// which at most some 400 points are drawn, each the mean of its neighbours. Without any point it
// says so.
std::string LineChart(const std::string& title, const std::vector<Series>& series);

// `text` with &, <, >, " and ' written as entities.
std::string HtmlEscape(const std::string& text);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_LINE_CHART_H_
