// Where transforms cut and how large things get: pure arithmetic on explicit random draws.
//
// Numbers are rounded half to even and truncated exactly where torchvision and timm do it.
#ifndef TESSERA_DATA_TRANSFORMS_GEOMETRY_H_
#define TESSERA_DATA_TRANSFORMS_GEOMETRY_H_

#include <cstdint>
#include <optional>

#include "data/image.h"

namespace tessera {

// Evaluation: the shorter side becomes floor(image_size / crop_pct), then the centre is cut.
struct EvalGeometry {
  int64_t resized_height = 0;
  int64_t resized_width = 0;
  int64_t top =
      0;  // of the centre crop in the resized picture; negative where it must be padded with zeros
  int64_t left = 0;
};
EvalGeometry ComputeEvalGeometry(int64_t height, int64_t width, int64_t image_size,
                                 double crop_pct);

// One try of RandomResizedCrop or random erasing: a fraction of the area and an aspect ratio.
struct AreaDraw {
  double area_fraction = 0;
  double aspect = 0;
};

// The size that a draw gives to a crop of a picture (aspect is width over height), or none if it
// does not fit.
struct BoxSize {
  int64_t height = 0;
  int64_t width = 0;
};
std::optional<BoxSize> RandomResizedCropSize(int64_t height, int64_t width, const AreaDraw& draw);

// The centred crop that is used when ten draws did not fit.
Rect RandomResizedCropFallback(int64_t height, int64_t width, double min_ratio, double max_ratio);

// The size of an erased box (aspect is height over width), or none if it does not leave a rim.
// `count` boxes share the area.
std::optional<BoxSize> ErasingSize(int64_t height, int64_t width, const AreaDraw& draw,
                                   int64_t count);

// The box that CutMix exchanges, centred on (center_y, center_x) and clipped to the picture (Yun et
// al., ICCV 2019).
Rect CutMixBox(int64_t height, int64_t width, double lambda, int64_t center_y, int64_t center_x);
// The share of the own picture that is left outside the box.
double CutMixLambda(int64_t height, int64_t width, const Rect& box);

}  // namespace tessera

#endif  // TESSERA_DATA_TRANSFORMS_GEOMETRY_H_
