#include "data/resample.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/status.h"
#include "data/resample_weights.h"

namespace tessera {
namespace {

constexpr std::array<absl::string_view, kNumFilters> kFilterNames = {
    "nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"};

double FilterRadius(Filter filter) {
  switch (filter) {
    case Filter::kBox:
      return 0.5;
    case Filter::kBicubic:
      return 2.0;
    case Filter::kLanczos:
      return 3.0;
    default:
      return 1.0;
  }
}

double Sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double FilterValue(Filter filter, double x) {
  const double a = std::abs(x);
  switch (filter) {
    case Filter::kBox:
      return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
    case Filter::kBilinear:
      return a < 1.0 ? 1.0 - a : 0.0;
    case Filter::kHamming:
      // Pillow's constants are float.
      return a < 1.0 ? Sinc(a) * (0.54f + 0.46f * std::cos(std::numbers::pi * a)) : 0.0;
    case Filter::kBicubic:  // Keys, "Cubic convolution interpolation", 1981, with a = -0.5
      if (a < 1.0) return (1.5 * a - 2.5) * a * a + 1.0;
      return a < 2.0 ? (((a - 5.0) * a + 8.0) * a - 4.0) * -0.5 : 0.0;
    case Filter::kLanczos:
      return x >= -3.0 && x < 3.0 ? Sinc(x) * Sinc(x / 3.0) : 0.0;
    case Filter::kNearest:
      break;
  }
  return 0.0;
}

int32_t FixedPoint(double weight) {
  const double scaled = weight * (1 << internal::kWeightBits);
  return static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

// Source indices of the outputs [begin, end). Pillow adds the scale up step by step, and so where
// it rounds differs from a product.
std::vector<int64_t> NearestIndices(double window_begin, double scale, int64_t begin, int64_t end,
                                    int64_t in_size) {
  std::vector<int64_t> indices;
  double position = window_begin + scale * 0.5;
  for (int64_t i = 0; i < end; ++i, position += scale) {
    if (i >= begin) indices.push_back(std::min(static_cast<int64_t>(position), in_size - 1));
  }
  return indices;
}

Image ResizeNearest(const ImageView& source, const ResizeOptions& options,
                    const SourceWindow& window, const Rect& crop) {
  const auto xs =
      NearestIndices(window.left, (window.right - window.left) / static_cast<double>(options.width),
                     crop.left, crop.left + crop.width, source.width);
  const auto ys =
      NearestIndices(window.top, (window.bottom - window.top) / static_cast<double>(options.height),
                     crop.top, crop.top + crop.height, source.height);
  Image out(crop.height, crop.width);
  for (int64_t y = 0; y < crop.height; ++y) {
    const uint8_t* in = source.row(ys[y]);
    for (int64_t x = 0; x < crop.width; ++x) std::copy_n(in + 3 * xs[x], 3, out.row(y) + 3 * x);
  }
  return out;
}

}  // namespace

absl::string_view Name(Filter filter) { return kFilterNames[static_cast<int>(filter)]; }

absl::StatusOr<Filter> ParseFilter(absl::string_view name) {
  for (int i = 0; i < kNumFilters; ++i) {
    if (kFilterNames[i] == name) return static_cast<Filter>(i);
  }
  return ConfigError(absl::StrCat(
      "unknown filter '", name, "'; expected nearest, box, bilinear, hamming, bicubic or lanczos"));
}

namespace internal {

ResampleWeights MakeResampleWeights(Filter filter, int64_t in_size, float window_begin,
                                    float window_end, int64_t out_size, int64_t begin,
                                    int64_t end) {
  const double scale =
      static_cast<double>(window_end - window_begin) / static_cast<double>(out_size);
  const double stretch = std::max(scale, 1.0);
  const double support = FilterRadius(filter) * stretch;
  const double inverse = 1.0 / stretch;
  ResampleWeights result;
  const int64_t max_count = 2 * static_cast<int64_t>(std::ceil(support)) + 1;
  result.pairs = (max_count + 3) / 4 * 2;
  result.first.resize(end - begin);
  result.count.resize(end - begin);
  result.high.resize((end - begin) * result.pairs);
  result.low.resize((end - begin) * result.pairs);
  std::vector<double> values(max_count);
  for (int64_t i = begin; i < end; ++i) {
    const double center = window_begin + (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(center - support + 0.5), 0);
    const int64_t last = std::min<int64_t>(static_cast<int64_t>(center + support + 0.5), in_size);
    const int64_t count = last - first;
    double sum = 0.0;
    for (int64_t k = 0; k < count; ++k) {
      values[k] = FilterValue(filter, (static_cast<double>(first + k) - center + 0.5) * inverse);
      sum += values[k];
    }
    result.first[i - begin] = first;
    result.count[i - begin] = count;
    for (int64_t k = 0; k < count; ++k) {
      const int32_t weight = FixedPoint(sum == 0.0 ? values[k] : values[k] / sum);
      const int64_t at = (i - begin) * result.pairs + k / 2;
      const int shift = k % 2 == 0 ? 0 : 16;
      result.high[at] |=
          static_cast<int32_t>((static_cast<uint32_t>(weight >> kLowBits) & 0xFFFF) << shift);
      result.low[at] |= (weight & ((1 << kLowBits) - 1)) << shift;
    }
  }
  return result;
}

}  // namespace internal

Image Resize(const ImageView& source, const ResizeOptions& options) {
  const SourceWindow window = options.window.value_or(
      SourceWindow{0, 0, static_cast<float>(source.width), static_cast<float>(source.height)});
  const Rect crop = options.crop.value_or(Rect{0, 0, options.height, options.width});
  CHECK(source.height > 0 && source.width > 0 && crop.height > 0 && crop.width > 0)
      << "resize of " << source.height << "x" << source.width << " to " << options.height << "x"
      << options.width << ", part of " << crop.height << "x" << crop.width;
  CHECK(crop.top >= 0 && crop.left >= 0 && crop.top + crop.height <= options.height &&
        crop.left + crop.width <= options.width)
      << "the part of the output leaves it";
  CHECK(window.left >= 0 && window.top >= 0 && window.left < window.right &&
        window.top < window.bottom && window.right <= static_cast<float>(source.width) &&
        window.bottom <= static_cast<float>(source.height))
      << "the window leaves the source";
  if (options.filter == Filter::kNearest) return ResizeNearest(source, options, window, crop);

  const bool filter_x = options.width != source.width || window.left != 0 ||
                        window.right != static_cast<float>(options.width);
  const bool filter_y = options.height != source.height || window.top != 0 ||
                        window.bottom != static_cast<float>(options.height);
  internal::ResampleWeights columns;
  ImageView input = source;
  Rect needed{crop.top, crop.left, crop.height, crop.width};
  if (filter_y) {
    columns =
        internal::MakeResampleWeights(options.filter, source.height, window.top, window.bottom,
                                      options.height, crop.top, crop.top + crop.height);
    needed.top = columns.first.front();
    needed.height = columns.first.back() + columns.count.back() - needed.top;
    for (int64_t& first : columns.first) first -= needed.top;
  }
  std::vector<uint8_t> buffer;
  if (filter_x) {
    const auto rows =
        internal::MakeResampleWeights(options.filter, source.width, window.left, window.right,
                                      options.width, crop.left, crop.left + crop.width);
    const int64_t stride = (3 * crop.width + 1 + 63) / 64 * 64;
    buffer.resize(stride * needed.height + kImagePadding);
    internal::ResampleRows(source.Crop({needed.top, 0, needed.height, source.width}), rows,
                           buffer.data(), stride);
    input = {buffer.data(), needed.height, crop.width, stride};
  } else {
    input = source.Crop(needed);
  }
  if (!filter_y) return Image::Copy(input);
  Image out(crop.height, crop.width);
  internal::ResampleColumns(input, columns, &out);
  return out;
}

}  // namespace tessera
