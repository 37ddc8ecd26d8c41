// Inner loops of the transforms that are compiled once per instruction set.
#ifndef TESSERA_DATA_TRANSFORMS_PIXEL_SIMD_H_
#define TESSERA_DATA_TRANSFORMS_PIXEL_SIMD_H_

#include <cstdint>

#include "data/image.h"
#include "data/transforms/pixel_ops.h"

namespace tessera::internal {

// Sum over pixels of L = (19595 R + 38470 G + 7471 B + 32768) >> 16.
int64_t SumOfGray(const uint8_t* rgb, int64_t num_pixels);
// rgb = L + factor * (rgb - L), clamped and truncated.
void BlendWithGray(uint8_t* rgb, int64_t num_pixels, float factor);
// Blends `source` smoothed by [1 1 1; 1 5 1; 1 1 1] / 13 (rim unchanged) with `source`. At least 3
// x 3 pixels.
void Sharpen(const ImageView& source, float factor, Image* out);
// See WarpAffine.
void Warp(const ImageView& source, const AffineMap& map, bool bicubic, Rgb fill, Image* out);

// out[i] = (rgb[i] / 255 - mean[c]) / std[c], each step rounded to float as PyTorch does it.
void Normalize(const uint8_t* rgb, int64_t num_pixels, const float* mean, const float* std,
               float* out);
// a = lambda * a + (1 - lambda) * b
void MixValues(float* a, const float* b, int64_t count, float lambda);

}  // namespace tessera::internal

#endif  // TESSERA_DATA_TRANSFORMS_PIXEL_SIMD_H_
