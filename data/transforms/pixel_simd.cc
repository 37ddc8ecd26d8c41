#include "data/transforms/pixel_simd.h"

#include <algorithm>
#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "data/transforms/pixel_simd.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::internal {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// One pixel: red, green, blue and a lane that is not used.
using Pixel = hn::FixedTag<float, 4>;
using PixelV = hn::Vec<Pixel>;
using Floats = hn::ScalableTag<float>;
using FloatsV = hn::Vec<Floats>;

HWY_INLINE int Gray(const uint8_t* p) {
  return (19595 * p[0] + 38470 * p[1] + 7471 * p[2] + 32768) >> 16;
}

int64_t SumOfGrayLoop(const uint8_t* rgb, int64_t num_pixels) {
  int64_t sum = 0;
  for (int64_t i = 0; i < num_pixels; ++i) sum += Gray(rgb + 3 * i);
  return sum;
}

// Reads four bytes, one more than a pixel has.
HWY_INLINE PixelV LoadPixel(const uint8_t* p) {
  const hn::Rebind<uint8_t, Pixel> d8;
  const hn::Rebind<int32_t, Pixel> d32;
  return hn::ConvertTo(Pixel(), hn::PromoteTo(d32, hn::LoadU(d8, p)));
}

// Truncates and clamps. Writes three bytes, unless `spill` allows the fourth.
template <bool spill>
HWY_INLINE void StorePixel(PixelV v, uint8_t* p) {
  const hn::Rebind<uint8_t, Pixel> d8;
  const hn::Rebind<int32_t, Pixel> d32;
  const auto bytes = hn::DemoteTo(d8, hn::ConvertTo(d32, v));
  if constexpr (spill) {
    hn::StoreU(bytes, d8, p);
  } else {
    alignas(16) uint8_t lanes[16];
    hn::StoreU(bytes, d8, lanes);
    for (int c = 0; c < 3; ++c) p[c] = lanes[c];
  }
}

HWY_INLINE PixelV Blend(PixelV a, PixelV b, PixelV factor) {
  return hn::Add(a, hn::Mul(factor, hn::Sub(b, a)));
}

void BlendWithGrayLoop(uint8_t* rgb, int64_t num_pixels, float factor) {
  const auto f = hn::Set(Pixel(), factor);
  for (int64_t i = 0; i < num_pixels; ++i) {
    uint8_t* p = rgb + 3 * i;
    const auto gray = hn::Set(Pixel(), static_cast<float>(Gray(p)));
    StorePixel<false>(Blend(gray, LoadPixel(p), f), p);
  }
}

void SharpenLoop(const ImageView& source, float factor, Image* out) {
  for (int64_t y = 1; y + 1 < source.height; ++y) {
    const uint8_t* above = source.row(y - 1);
    const uint8_t* here = source.row(y);
    const uint8_t* below = source.row(y + 1);
    uint8_t* result = out->row(y);
    for (int64_t i = 3; i < 3 * (source.width - 1); ++i) {
      const int sum = above[i - 3] + above[i] + above[i + 3] + here[i - 3] + 5 * here[i] +
                      here[i + 3] + below[i - 3] + below[i] + below[i + 3];
      const auto smooth = static_cast<float>((2 * sum + 13) / 26);
      const float value = smooth + factor * (static_cast<float>(here[i]) - smooth);
      result[i] = static_cast<uint8_t>(static_cast<int>(std::min(std::max(value, 0.0f), 255.0f)));
    }
  }
}

// The cubic through b and c with slopes taken from a and d; exact for constants.
HWY_INLINE PixelV Cubic(PixelV a, PixelV b, PixelV c, PixelV d, PixelV t) {
  const auto ab = hn::Sub(a, b);
  const auto cd = hn::Sub(c, d);
  const auto p2 = hn::Sub(c, a);
  const auto p3 = hn::Add(hn::Add(ab, ab), cd);
  const auto p4 = hn::Neg(hn::Add(ab, cd));
  return hn::MulAdd(t, hn::MulAdd(t, hn::MulAdd(t, p4, p3), p2), b);
}

struct Taps {
  int64_t offset[4];  // of the taps around a coordinate, edges repeated
  float fraction;
};

// Taps -1, 0, 1 and 2 of a coordinate (pixel centres at integers) along a side of `size` steps of
// `stride` bytes.
HWY_INLINE Taps TapsAt(double coordinate, int64_t size, int64_t stride) {
  const double floor = std::floor(coordinate);
  const auto base = static_cast<int64_t>(floor);
  Taps taps;
  for (int64_t k = 0; k < 4; ++k) {
    taps.offset[k] = std::min(std::max<int64_t>(base + k - 1, 0), size - 1) * stride;
  }
  taps.fraction = static_cast<float>(coordinate - floor);
  return taps;
}

HWY_INLINE PixelV SampleBicubic(const uint8_t* p, const Taps& x, const Taps& y) {
  const auto tx = hn::Set(Pixel(), x.fraction);
  const auto row = [&](int k) HWY_ATTR {
    const uint8_t* r = p + y.offset[k];
    return Cubic(LoadPixel(r + x.offset[0]), LoadPixel(r + x.offset[1]), LoadPixel(r + x.offset[2]),
                 LoadPixel(r + x.offset[3]), tx);
  };
  if (y.fraction == 0.0f) return row(1);
  return Cubic(row(0), row(1), row(2), row(3), hn::Set(Pixel(), y.fraction));
}

HWY_INLINE PixelV SampleBilinear(const uint8_t* p, const Taps& x, const Taps& y) {
  const auto tx = hn::Set(Pixel(), x.fraction);
  const auto row = [&](int k) HWY_ATTR {
    const uint8_t* r = p + y.offset[k];
    return Blend(LoadPixel(r + x.offset[1]), LoadPixel(r + x.offset[2]), tx);
  };
  if (y.fraction == 0.0f) return row(1);
  return Blend(row(1), row(2), hn::Set(Pixel(), y.fraction));
}

template <bool bicubic>
void WarpWith(const ImageView& source, const AffineMap& m, Rgb fill, Image* out) {
  const auto width = static_cast<double>(source.width);
  const auto height = static_cast<double>(source.height);
  for (int64_t y = 0; y < source.height; ++y) {
    const double center_y = static_cast<double>(y) + 0.5;
    uint8_t* p = out->row(y);
    for (int64_t x = 0; x < source.width; ++x, p += 3) {
      const double center_x = static_cast<double>(x) + 0.5;
      const double xs = m.xx * center_x + m.xy * center_y + m.x0;
      const double ys = m.yx * center_x + m.yy * center_y + m.y0;
      if (!(xs >= 0.0 && xs < width && ys >= 0.0 && ys < height)) {
        for (int c = 0; c < 3; ++c) p[c] = fill[c];
        continue;
      }
      const Taps tx = TapsAt(xs - 0.5, source.width, 3);
      const Taps ty = TapsAt(ys - 0.5, source.height, source.stride);
      const auto v =
          bicubic ? SampleBicubic(source.data, tx, ty) : SampleBilinear(source.data, tx, ty);
      StorePixel<true>(v, p);
    }
  }
}

void WarpLoop(const ImageView& source, const AffineMap& map, bool bicubic, Rgb fill, Image* out) {
  if (bicubic) {
    WarpWith<true>(source, map, fill, out);
  } else {
    WarpWith<false>(source, map, fill, out);
  }
}

void NormalizeLoop(const uint8_t* rgb, int64_t num_pixels, const float* mean, const float* std,
                   float* out) {
  const Floats df;
  const hn::Rebind<uint8_t, Floats> d8;
  const hn::Rebind<int32_t, Floats> d32;
  const auto lanes = static_cast<int64_t>(hn::Lanes(df));
  // Channels repeat every three vectors.
  HWY_ALIGN float means[3 * hn::MaxLanes(Floats())];
  HWY_ALIGN float stds[3 * hn::MaxLanes(Floats())];
  for (int64_t i = 0; i < 3 * lanes; ++i) {
    means[i] = mean[i % 3];
    stds[i] = std[i % 3];
  }
  const auto scale = hn::Set(df, 255.0f);
  const int64_t count = 3 * num_pixels;
  int64_t i = 0;
  for (; i + 3 * lanes <= count; i += 3 * lanes) {
    for (int64_t v = 0; v < 3; ++v) {
      const int64_t at = i + v * lanes;
      const auto value =
          hn::Div(hn::ConvertTo(df, hn::PromoteTo(d32, hn::LoadU(d8, rgb + at))), scale);
      hn::StoreU(
          hn::Div(hn::Sub(value, hn::Load(df, means + v * lanes)), hn::Load(df, stds + v * lanes)),
          df, out + at);
    }
  }
  for (; i < count; ++i) {
    out[i] = (static_cast<float>(rgb[i]) / 255.0f - mean[i % 3]) / std[i % 3];
  }
}

void MixValuesLoop(float* HWY_RESTRICT a, const float* HWY_RESTRICT b, int64_t count,
                   float lambda) {
  const float rest = 1.0f - lambda;
  for (int64_t i = 0; i < count; ++i) a[i] = a[i] * lambda + b[i] * rest;
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::internal
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::internal {

HWY_EXPORT(SumOfGrayLoop);
HWY_EXPORT(BlendWithGrayLoop);
HWY_EXPORT(SharpenLoop);
HWY_EXPORT(WarpLoop);
HWY_EXPORT(NormalizeLoop);
HWY_EXPORT(MixValuesLoop);

int64_t SumOfGray(const uint8_t* rgb, int64_t num_pixels) {
  return HWY_DYNAMIC_DISPATCH(SumOfGrayLoop)(rgb, num_pixels);
}
void BlendWithGray(uint8_t* rgb, int64_t num_pixels, float factor) {
  HWY_DYNAMIC_DISPATCH(BlendWithGrayLoop)(rgb, num_pixels, factor);
}
void Sharpen(const ImageView& source, float factor, Image* out) {
  HWY_DYNAMIC_DISPATCH(SharpenLoop)(source, factor, out);
}
void Warp(const ImageView& source, const AffineMap& map, bool bicubic, Rgb fill, Image* out) {
  HWY_DYNAMIC_DISPATCH(WarpLoop)(source, map, bicubic, fill, out);
}
void Normalize(const uint8_t* rgb, int64_t num_pixels, const float* mean, const float* std,
               float* out) {
  HWY_DYNAMIC_DISPATCH(NormalizeLoop)(rgb, num_pixels, mean, std, out);
}
void MixValues(float* a, const float* b, int64_t count, float lambda) {
  HWY_DYNAMIC_DISPATCH(MixValuesLoop)(a, b, count, lambda);
}

}  // namespace tessera::internal
#endif
