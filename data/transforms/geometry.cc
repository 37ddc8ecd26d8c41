#include "data/transforms/geometry.h"

#include <algorithm>
#include <cmath>

namespace tessera {
namespace {

int64_t Round(double x) { return static_cast<int64_t>(std::nearbyint(x)); }

}  // namespace

EvalGeometry ComputeEvalGeometry(int64_t height, int64_t width, int64_t image_size,
                                 double crop_pct) {
  const auto shorter = static_cast<int64_t>(std::floor(static_cast<double>(image_size) / crop_pct));
  const int64_t longer = shorter * std::max(height, width) / std::min(height, width);
  EvalGeometry g;
  g.resized_height = width <= height ? longer : shorter;
  g.resized_width = width <= height ? shorter : longer;
  // What must be padded is split with the floor half on the top and left.
  const auto start = [image_size](int64_t resized) {
    if (resized < image_size) return -((image_size - resized) / 2);
    return Round(static_cast<double>(resized - image_size) / 2.0);
  };
  g.top = start(g.resized_height);
  g.left = start(g.resized_width);
  return g;
}

std::optional<BoxSize> RandomResizedCropSize(int64_t height, int64_t width, const AreaDraw& draw) {
  const double area = draw.area_fraction * static_cast<double>(width) * static_cast<double>(height);
  const BoxSize size{Round(std::sqrt(area / draw.aspect)), Round(std::sqrt(area * draw.aspect))};
  if (size.width > width || size.height > height || size.width == 0 || size.height == 0) {
    return std::nullopt;
  }
  return size;
}

Rect RandomResizedCropFallback(int64_t height, int64_t width, double min_ratio, double max_ratio) {
  const double ratio = static_cast<double>(width) / static_cast<double>(height);
  Rect crop{0, 0, height, width};
  if (ratio < min_ratio) {
    crop.height = std::clamp<int64_t>(Round(static_cast<double>(width) / min_ratio), 1, height);
  } else if (ratio > max_ratio) {
    crop.width = std::clamp<int64_t>(Round(static_cast<double>(height) * max_ratio), 1, width);
  }
  crop.top = (height - crop.height) / 2;
  crop.left = (width - crop.width) / 2;
  return crop;
}

std::optional<BoxSize> ErasingSize(int64_t height, int64_t width, const AreaDraw& draw,
                                   int64_t count) {
  const double area = draw.area_fraction * static_cast<double>(height) *
                      static_cast<double>(width) / static_cast<double>(count);
  const BoxSize size{Round(std::sqrt(area * draw.aspect)), Round(std::sqrt(area / draw.aspect))};
  if (size.width >= width || size.height >= height) return std::nullopt;
  return size;
}

Rect CutMixBox(int64_t height, int64_t width, double lambda, int64_t center_y, int64_t center_x) {
  const double ratio = std::sqrt(1.0 - lambda);
  const auto box_height = static_cast<int64_t>(static_cast<double>(height) * ratio);
  const auto box_width = static_cast<int64_t>(static_cast<double>(width) * ratio);
  const int64_t top = std::clamp<int64_t>(center_y - box_height / 2, 0, height);
  const int64_t bottom = std::clamp<int64_t>(center_y + (box_height + 1) / 2, 0, height);
  const int64_t left = std::clamp<int64_t>(center_x - box_width / 2, 0, width);
  const int64_t right = std::clamp<int64_t>(center_x + (box_width + 1) / 2, 0, width);
  return {top, left, bottom - top, right - left};
}

double CutMixLambda(int64_t height, int64_t width, const Rect& box) {
  return 1.0 - static_cast<double>(box.height * box.width) / static_cast<double>(height * width);
}

}  // namespace tessera
