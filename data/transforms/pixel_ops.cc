#include "data/transforms/pixel_ops.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "data/transforms/pixel_simd.h"

namespace tessera {
namespace {

using Table = std::array<uint8_t, 256>;
using Histogram = std::array<int64_t, 256>;

template <typename Fn>
Table MakeTable(Fn&& fn) {
  Table table;
  for (int i = 0; i < 256; ++i) table[i] = static_cast<uint8_t>(fn(i));
  return table;
}

void Apply(Image* image, const Table& table) {
  uint8_t* p = image->data();
  for (int64_t i = 0; i < image->bytes(); ++i) p[i] = table[p[i]];
}

void Apply(Image* image, const std::array<Table, 3>& tables) {
  uint8_t* p = image->data();
  for (int64_t i = 0; i < image->bytes(); i += 3) {
    for (int c = 0; c < 3; ++c) p[i + c] = tables[c][p[i + c]];
  }
}

std::array<Histogram, 3> Histograms(const Image& image) {
  std::array<Histogram, 3> histograms = {};
  const uint8_t* p = image.data();
  for (int64_t i = 0; i < image.bytes(); i += 3) {
    for (int c = 0; c < 3; ++c) ++histograms[c][p[i + c]];
  }
  return histograms;
}

Table StretchTable(const Histogram& h) {
  int low = 0;
  int high = 255;
  while (low < 255 && h[low] == 0) ++low;
  while (high > 0 && h[high] == 0) --high;
  if (high <= low) return MakeTable([](int i) { return i; });
  const double scale = 255.0 / (high - low);
  const double offset = -low * scale;
  return MakeTable([=](int i) { return std::clamp(static_cast<int>(i * scale + offset), 0, 255); });
}

Table EqualizeTable(const Histogram& h) {
  int64_t total = 0;
  int64_t last = 0;
  for (const int64_t count : h) {
    total += count;
    if (count != 0) last = count;
  }
  const int64_t step = (total - last) / 255;
  if (step == 0) return MakeTable([](int i) { return i; });
  int64_t below = step / 2;
  return MakeTable([&](int i) {
    const int64_t value = std::min<int64_t>(255, below / step);
    below += h[i];
    return value;
  });
}

// a + f (b - a) in float, clamped and truncated, where a is a constant and b the table's index.
Table BlendTable(float a, double factor) {
  const auto f = static_cast<float>(factor);
  return MakeTable(
      [=](int b) { return std::clamp(a + f * (static_cast<float>(b) - a), 0.0f, 255.0f); });
}

// HSV with all three parts in 0..255, truncated and rounded to float where Pillow does it.
Rgb RotateHue(Rgb rgb, int shift) {
  const int high = std::max({rgb[0], rgb[1], rgb[2]});
  const int low = std::min({rgb[0], rgb[1], rgb[2]});
  if (high == low) return rgb;
  const auto range = static_cast<float>(high - low);
  const float r = static_cast<float>(high - rgb[0]) / range;
  const float g = static_cast<float>(high - rgb[1]) / range;
  const float b = static_cast<float>(high - rgb[2]) / range;
  float hue = b - g;
  if (rgb[0] != high) hue = static_cast<float>(rgb[1] == high ? 2.0 + r - b : 4.0 + g - r);
  hue = static_cast<float>(std::fmod(hue / 6.0 + 1.0, 1.0));
  const int h = (static_cast<int>(hue * 255.0) + shift) & 255;
  const int s = static_cast<int>(range / static_cast<float>(high) * 255.0);

  const double position = h * 6.0 / 255.0;
  const int sector = static_cast<int>(position);
  const auto f = static_cast<float>(position - sector);
  const auto fs = static_cast<float>(s / 255.0);
  const auto part = [high](double keep) {
    return static_cast<uint8_t>(std::clamp(std::round(high * keep), 0.0, 255.0));
  };
  const auto v = static_cast<uint8_t>(high);
  const uint8_t p = part(1.0 - fs);
  const uint8_t q = part(1.0 - static_cast<double>(fs * f));
  const uint8_t t = part(1.0 - fs * (1.0 - f));
  switch (sector % 6) {
    case 0:
      return {v, t, p};
    case 1:
      return {q, v, p};
    case 2:
      return {p, v, t};
    case 3:
      return {p, q, v};
    case 4:
      return {t, p, v};
    default:
      return {v, p, q};
  }
}

}  // namespace

void FlipHorizontally(Image* image) {
  const int64_t width = image->width();
  for (int64_t y = 0; y < image->height(); ++y) {
    uint8_t* left = image->row(y);
    uint8_t* right = left + 3 * (width - 1);
    for (; left < right; left += 3, right -= 3) std::swap_ranges(left, left + 3, right);
  }
}

void FlipVertically(Image* image) {
  for (int64_t y = 0; y < image->height() / 2; ++y) {
    uint8_t* top = image->row(y);
    std::swap_ranges(top, top + 3 * image->width(), image->row(image->height() - 1 - y));
  }
}

void AutoContrast(Image* image) {
  const auto h = Histograms(*image);
  Apply(image, {StretchTable(h[0]), StretchTable(h[1]), StretchTable(h[2])});
}

void Equalize(Image* image) {
  const auto h = Histograms(*image);
  Apply(image, {EqualizeTable(h[0]), EqualizeTable(h[1]), EqualizeTable(h[2])});
}

void Invert(Image* image) {
  Apply(image, MakeTable([](int i) { return 255 - i; }));
}

void Posterize(Image* image, int bits) {
  const int mask = bits >= 8 ? 255 : 255 & ~((1 << (8 - std::max(bits, 0))) - 1);
  Apply(image, MakeTable([=](int i) { return i & mask; }));
}

void Solarize(Image* image, int threshold) {
  Apply(image, MakeTable([=](int i) { return i < threshold ? i : 255 - i; }));
}

void SolarizeAdd(Image* image, int add) {
  Apply(image, MakeTable([=](int i) { return i < 128 ? std::min(255, i + add) : i; }));
}

void AdjustBrightness(Image* image, double factor) { Apply(image, BlendTable(0.0f, factor)); }

void AdjustContrast(Image* image, double factor) {
  const int64_t pixels = image->height() * image->width();
  const double mean =
      static_cast<double>(internal::SumOfGray(image->data(), pixels)) / static_cast<double>(pixels);
  Apply(image, BlendTable(std::floor(static_cast<float>(mean + 0.5)), factor));
}

void AdjustSaturation(Image* image, double factor) {
  internal::BlendWithGray(image->data(), image->height() * image->width(),
                          static_cast<float>(factor));
}

void ToGray(Image* image) { AdjustSaturation(image, 0.0); }

void AdjustSharpness(Image* image, double factor) {
  if (image->height() < 3 || image->width() < 3) return;
  const Image source = Image::Copy(*image);
  internal::Sharpen(source, static_cast<float>(factor), image);
}

void AdjustHue(Image* image, double turns) {
  const int shift = static_cast<int>(turns * 255.0);
  uint8_t* p = image->data();
  for (int64_t i = 0; i < image->bytes(); i += 3) {
    const Rgb rgb = RotateHue({p[i], p[i + 1], p[i + 2]}, shift);
    std::copy(rgb.begin(), rgb.end(), p + i);
  }
}

// Pillow rounds the coefficients to 15 decimals, which decides on which side of the rim some pixels
// fall; the order of the sums matters as well.
AffineMap AffineMap::Rotate(double degrees, int64_t height, int64_t width) {
  const double angle = -degrees * (std::numbers::pi / 180.0);
  const auto rounded = [](double x) { return std::nearbyint(x * 1e15) / 1e15; };
  const double c = rounded(std::cos(angle));
  const double s = rounded(std::sin(angle));
  const double cx = static_cast<double>(width) / 2.0;
  const double cy = static_cast<double>(height) / 2.0;
  return {.xx = c,
          .xy = s,
          .x0 = (c * -cx + s * -cy) + cx,
          .yx = -s,
          .yy = c,
          .y0 = (-s * -cx + c * -cy) + cy};
}

Image WarpAffine(const ImageView& source, const AffineMap& map, Filter filter, Rgb fill) {
  CHECK(filter == Filter::kBilinear || filter == Filter::kBicubic)
      << "WarpAffine with filter " << std::string(Name(filter));
  Image out(source.height, source.width);
  internal::Warp(source, map, filter == Filter::kBicubic, fill, &out);
  return out;
}

}  // namespace tessera
