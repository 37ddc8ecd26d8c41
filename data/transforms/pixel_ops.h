// Colour and geometric operations on 8-bit RGB, in place, with the results of Pillow (within one
// level where blending or interpolation rounds). The factors and angles are those of Pillow's
// ImageEnhance and ImageOps.
#ifndef TESSERA_DATA_TRANSFORMS_PIXEL_OPS_H_
#define TESSERA_DATA_TRANSFORMS_PIXEL_OPS_H_

#include <array>
#include <cstdint>

#include "data/image.h"
#include "data/resample.h"

namespace tessera {

using Rgb = std::array<uint8_t, 3>;

void FlipHorizontally(Image* image);
void FlipVertically(Image* image);

void AutoContrast(Image* image);  // stretches each channel to 0..255
void Equalize(Image* image);      // flattens each channel's histogram
void Invert(Image* image);
void Posterize(Image* image, int bits);              // keeps the high `bits`; 0 gives black
void Solarize(Image* image, int threshold);          // inverts pixels >= threshold
void SolarizeAdd(Image* image, int add);             // adds to pixels < 128, up to 255
void AdjustBrightness(Image* image, double factor);  // 0 gives black, 1 the image
void AdjustContrast(Image* image, double factor);    // 0 gives the mean gray
void AdjustSaturation(Image* image, double factor);  // 0 gives the gray image
void AdjustSharpness(Image* image, double factor);   // 0 gives the smoothed image
void AdjustHue(Image* image, double turns);          // -0.5..0.5 of the colour circle
void ToGray(Image* image);                           // the L image in all three channels

// Maps output pixel centres to source coordinates: x_s = xx * x + xy * y + x0, y_s = yx * x + yy *
// y + y0.
struct AffineMap {
  double xx = 1, xy = 0, x0 = 0;
  double yx = 0, yy = 1, y0 = 0;

  static AffineMap ShearX(double shear) { return {.xy = shear}; }
  static AffineMap ShearY(double shear) { return {.yx = shear}; }
  static AffineMap Translate(double x, double y) { return {.x0 = x, .y0 = y}; }
  // Counter-clockwise about the centre of an image of this size.
  static AffineMap Rotate(double degrees, int64_t height, int64_t width);
};

// Same size; what falls outside gets the fill colour. Filter is kBilinear (2x2 taps) or kBicubic
// (4x4, a = -1), edge pixels repeat, the result is truncated.
Image WarpAffine(const ImageView& source, const AffineMap& map, Filter filter, Rgb fill);

}  // namespace tessera

#endif  // TESSERA_DATA_TRANSFORMS_PIXEL_OPS_H_
