// Tables of relative position bias for another window.
#include <algorithm>
#include <cmath>
#include <vector>

#include "attention/grid/relative_position.h"

namespace tessera {
namespace {

// Values of one axis at n places between knots: value(places[i]) = (1 - weight) values[low] +
// weight values[low + 1].
struct Place {
  int64_t low;
  double weight;
};

// Places of the integers -n/2 to n/2 between `source` knots at 0, +-1, +-(1 + q), ..., where q
// makes the last one reach n/2.
std::vector<Place> UnevenPlaces(int64_t source, int64_t n) {
  const int64_t half = source / 2, reach = n / 2;
  double low = 1.01, high = 1.5, q = low;
  while (high - low > 1e-6) {
    q = (low + high) / 2;
    const double sum = (1 - std::pow(q, static_cast<double>(half))) / (1 - q);
    (sum > static_cast<double>(reach) ? high : low) = q;
  }
  std::vector<double> knots(source);
  double distance = 1, step = 1;
  for (int64_t i = 0; i < half; ++i) {
    knots[half + 1 + i] = distance;
    knots[half - 1 - i] = -distance;
    step *= q;
    distance += step;
  }
  std::vector<Place> places;
  for (int64_t i = 0; i < n; ++i) {
    const double at = std::clamp(static_cast<double>(i - reach), knots.front(), knots.back());
    int64_t k = 0;
    while (k + 2 < source && knots[k + 1] <= at) ++k;
    places.push_back({k, source == 1 ? 0.0 : (at - knots[k]) / (knots[k + 1] - knots[k])});
  }
  return places;
}

std::vector<Place> BilinearPlaces(int64_t source, int64_t n) {
  std::vector<Place> places;
  const double ratio = static_cast<double>(source) / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) {
    const double at = std::clamp((static_cast<double>(i) + 0.5) * ratio - 0.5, 0.0,
                                 static_cast<double>(source - 1));
    const int64_t low =
        std::min<int64_t>(static_cast<int64_t>(at), std::max<int64_t>(source - 2, 0));
    places.push_back({low, at - static_cast<double>(low)});
  }
  return places;
}

// The dimensions of a table, and how far apart their elements are.
struct View {
  int64_t heads = 0, rows = 0, columns = 0;
  int64_t head_step = 0, row_step = 0, column_step = 0;

  bool is_table() const { return rows % 2 == 1 && columns % 2 == 1; }
  int64_t Index(int64_t head, int64_t row, int64_t column) const {
    return head * head_step + row * row_step + column * column_step;
  }
};

View ViewOf(const Shape& shape) {
  if (shape.rank() == 3) return {shape[0], shape[1], shape[2], shape[1] * shape[2], shape[2], 1};
  if (shape.rank() != 2) return {};
  const int64_t heads = shape[1], side = std::llround(std::sqrt(static_cast<double>(shape[0])));
  if (side * side != shape[0]) return {};
  return {heads, side, side, 1, side * heads, heads};
}

}  // namespace

std::optional<Tensor> ResizeRelativeTable(const Tensor& table, const Shape& to,
                                          TableResize method) {
  const View from = ViewOf(table.shape()), out = ViewOf(to);
  if (!from.is_table() || !out.is_table() || from.heads != out.heads || table.rank() != to.rank()) {
    return std::nullopt;
  }
  const auto places = method == TableResize::kUneven ? UnevenPlaces : BilinearPlaces;
  const std::vector<Place> down = places(from.rows, out.rows);
  const std::vector<Place> across = places(from.columns, out.columns);
  Tensor resized = Tensor::Empty(to, DType::kF32);
  const float* source = table.data<float>();
  for (int64_t h = 0; h < from.heads; ++h) {
    const auto along_row = [&](int64_t row, const Place& p) {
      const double next = p.weight > 0 ? source[from.Index(h, row, p.low + 1)] : 0.0;
      return (1 - p.weight) * source[from.Index(h, row, p.low)] + p.weight * next;
    };
    for (int64_t i = 0; i < out.rows; ++i) {
      const Place& p = down[i];
      for (int64_t j = 0; j < out.columns; ++j) {
        const double next = p.weight > 0 ? along_row(p.low + 1, across[j]) : 0.0;
        const double value = (1 - p.weight) * along_row(p.low, across[j]) + p.weight * next;
        resized.data<float>()[out.Index(h, i, j)] = static_cast<float>(value);
      }
    }
  }
  return resized;
}

}  // namespace tessera
