// Antialiased resizing that gives the same bits as Pillow's Image.resize on 8-bit RGB.
//
// A separable filter whose support grows with the reduction factor. Weights are 22-bit fixed point;
// the horizontal pass comes first and its result is rounded to 8 bits before the vertical one. A
// pass that changes nothing is skipped. Pillow had that order up to version 12; from 13 on it runs
// the vertical pass first where the height loses over twice as many pixels as the width.
#ifndef TESSERA_DATA_RESAMPLE_H_
#define TESSERA_DATA_RESAMPLE_H_

#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "data/image.h"

namespace tessera {

enum class Filter { kNearest, kBox, kBilinear, kHamming, kBicubic, kLanczos };
inline constexpr int kNumFilters = 6;
absl::string_view Name(Filter filter);
absl::StatusOr<Filter> ParseFilter(absl::string_view name);  // "bicubic", ...

// Part of a source, in pixels; fractions are allowed. Edges are float because Pillow's are.
struct SourceWindow {
  float left = 0;
  float top = 0;
  float right = 0;
  float bottom = 0;
};

struct ResizeOptions {
  int64_t height = 0;  // of the whole output
  int64_t width = 0;
  Filter filter = Filter::kBicubic;
  // What the output shows; the filter still sees pixels around it. Default: all of the source. Crop
  // the view instead to keep the filter inside.
  std::optional<SourceWindow> window = std::nullopt;
  // Compute this part of the output only; its pixels are those that the whole output would have.
  std::optional<Rect> crop = std::nullopt;
};

// CHECK-fails on an empty source or output and on a window outside the source.
Image Resize(const ImageView& source, const ResizeOptions& options);

}  // namespace tessera

#endif  // TESSERA_DATA_RESAMPLE_H_
