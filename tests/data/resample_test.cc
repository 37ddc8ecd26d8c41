#include "data/resample.h"

#include <cmath>

#include "core/random.h"
#include "data/image.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

Image RandomImage(int64_t height, int64_t width, uint64_t seed) {
  RandomStream random(seed, Purpose::kTest);
  Image image(height, width);
  for (int64_t i = 0; i < image.bytes(); ++i) {
    // Many extremes, so that overshoot must be clamped.
    const uint32_t r = random.Next();
    image.data()[i] = r % 3 == 0 ? 0 : r % 3 == 1 ? 255 : static_cast<uint8_t>(r >> 8);
  }
  return image;
}

double Kernel(Filter filter, double x) {
  const auto sinc = [](double v) { return v == 0 ? 1 : std::sin(M_PI * v) / (M_PI * v); };
  const double a = std::abs(x);
  switch (filter) {
    case Filter::kBox:
      return x > -0.5 && x <= 0.5 ? 1 : 0;
    case Filter::kBilinear:
      return a < 1 ? 1 - a : 0;
    case Filter::kHamming:
      return a < 1 ? sinc(a) * (0.54f + 0.46f * std::cos(M_PI * a)) : 0;
    case Filter::kBicubic:
      return a < 1 ? 1.5 * a * a * a - 2.5 * a * a + 1
                   : (a < 2 ? -0.5 * a * a * a + 2.5 * a * a - 4 * a + 2 : 0);
    default:
      return a < 3 ? sinc(x) * sinc(x / 3) : 0;
  }
}

double Radius(Filter filter) {
  return filter == Filter::kBox       ? 0.5
         : filter == Filter::kBicubic ? 2
         : filter == Filter::kLanczos ? 3
                                      : 1;
}

// One direction of the definition in plain loops: value(j) of n_in sources to n_out outputs.
template <typename Fn>
std::vector<uint8_t> ResizeLine(Filter filter, int64_t n_in, double b0, double b1, int64_t n_out,
                                Fn value) {
  std::vector<uint8_t> out;
  const double scale = (b1 - b0) / static_cast<double>(n_out);
  const double f = std::max(scale, 1.0);
  for (int64_t i = 0; i < n_out; ++i) {
    const double c = b0 + (static_cast<double>(i) + 0.5) * scale;
    const auto lo = std::max<int64_t>(static_cast<int64_t>(c - Radius(filter) * f + 0.5), 0);
    const auto hi = std::min<int64_t>(static_cast<int64_t>(c + Radius(filter) * f + 0.5), n_in);
    std::vector<double> weights;
    double sum = 0;
    for (int64_t j = lo; j < hi; ++j) {
      weights.push_back(Kernel(filter, (static_cast<double>(j) - c + 0.5) * (1.0 / f)));
      sum += weights.back();
    }
    int64_t total = 1 << 21;
    for (int64_t j = lo; j < hi; ++j) {
      total += std::llround(weights[j - lo] / sum * (1 << 22)) * value(j);
    }
    out.push_back(static_cast<uint8_t>(std::clamp<int64_t>(total >> 22, 0, 255)));
  }
  return out;
}

Image ReferenceResize(const Image& in, int64_t height, int64_t width, Filter filter,
                      const SourceWindow& w) {
  const bool skip_x = width == in.width() && w.left == 0 && w.right == static_cast<float>(width);
  const bool skip_y = height == in.height() && w.top == 0 && w.bottom == static_cast<float>(height);
  Image rows = skip_x ? Image::Copy(in) : Image(in.height(), width);
  for (int64_t y = 0; y < in.height() && !skip_x; ++y) {
    for (int64_t c = 0; c < 3; ++c) {
      const auto line = ResizeLine(filter, in.width(), w.left, w.right, width,
                                   [&](int64_t j) { return in.row(y)[3 * j + c]; });
      for (int64_t x = 0; x < width; ++x) rows.row(y)[3 * x + c] = line[x];
    }
  }
  if (skip_y) return rows;
  Image out(height, width);
  for (int64_t i = 0; i < 3 * width; ++i) {
    const auto line = ResizeLine(filter, in.height(), w.top, w.bottom, height,
                                 [&](int64_t j) { return rows.row(j)[i]; });
    for (int64_t y = 0; y < height; ++y) out.row(y)[i] = line[y];
  }
  return out;
}

void ExpectSame(const Image& got, const ImageView& expected) {
  ASSERT_EQ(got.height(), expected.height);
  ASSERT_EQ(got.width(), expected.width);
  for (int64_t y = 0; y < expected.height; ++y) {
    for (int64_t i = 0; i < 3 * expected.width; ++i) {
      ASSERT_EQ(int{got.row(y)[i]}, int{expected.row(y)[i]}) << "row " << y << ", byte " << i;
    }
  }
}

struct Case {
  int64_t height, width, out_height, out_width;
};
constexpr Case kCases[] = {
    {7, 5, 3, 2},     {1, 1, 5, 7},     {1, 9, 3, 3},       {64, 3, 5, 9},    {33, 47, 33, 20},
    {33, 47, 12, 47}, {61, 90, 61, 90}, {300, 211, 17, 23}, {20, 20, 57, 71}, {129, 67, 128, 66}};
constexpr Filter kFilters[] = {Filter::kBox, Filter::kBilinear, Filter::kHamming, Filter::kBicubic,
                               Filter::kLanczos};

class Resample : public OnEveryTarget {};

TEST_P(Resample, EveryFilterIsExact) {
  uint64_t seed = 1;
  for (const Case& c : kCases) {
    const Image image = RandomImage(c.height, c.width, seed++);
    const SourceWindow all{0, 0, static_cast<float>(c.width), static_cast<float>(c.height)};
    for (const Filter filter : kFilters) {
      SCOPED_TRACE(std::string(Name(filter)) + " " + std::to_string(c.height));
      ExpectSame(Resize(image, {.height = c.out_height, .width = c.out_width, .filter = filter}),
                 ReferenceResize(image, c.out_height, c.out_width, filter, all));
    }
  }
}

TEST_P(Resample, FractionalWindowsAreExact) {
  const Image image = RandomImage(50, 70, 3);
  for (const SourceWindow& window :
       {SourceWindow{0.5f, 3.25f, 69.5f, 50.0f}, {11, 7, 12, 9}, {0, 0, 30.1f, 49.9f}}) {
    for (const Filter filter : kFilters) {
      ExpectSame(Resize(image, {.height = 13, .width = 40, .filter = filter, .window = window}),
                 ReferenceResize(image, 13, 40, filter, window));
    }
  }
}

TEST_P(Resample, APartOfTheOutputIsThatPartOfTheWhole) {
  const Image image = RandomImage(90, 120, 4);
  RandomStream random(5, Purpose::kTest);
  for (const Filter filter : {Filter::kNearest, Filter::kBilinear, Filter::kBicubic}) {
    const Image whole = Resize(image, {.height = 41, .width = 67, .filter = filter});
    for (int i = 0; i < 20; ++i) {
      Rect r;
      r.height = random.Integer(1, 41);
      r.width = random.Integer(1, 67);
      r.top = random.Integer(0, 41 - r.height);
      r.left = random.Integer(0, 67 - r.width);
      ExpectSame(Resize(image, {.height = 41, .width = 67, .filter = filter, .crop = r}),
                 whole.view().Crop(r));
    }
  }
}

TEST_P(Resample, ACropOfAViewDoesNotSeeItsSurroundings) {
  const Image image = RandomImage(60, 80, 6);
  const Rect r{9, 13, 31, 40};
  const Image alone = Image::Copy(image.view().Crop(r));
  for (const Filter filter : kFilters) {
    ExpectSame(Resize(image.view().Crop(r), {.height = 16, .width = 24, .filter = filter}),
               Resize(alone, {.height = 16, .width = 24, .filter = filter}));
  }
}

TEST(ResampleFilters, NamesParseAndUnknownOnesAreErrors) {
  for (int i = 0; i < kNumFilters; ++i) {
    const auto filter = static_cast<Filter>(i);
    EXPECT_EQ(*ParseFilter(Name(filter)), filter);
  }
  EXPECT_FALSE(ParseFilter("cubic").ok());
}

INSTANTIATE_ON_EVERY_TARGET(Resample);

}  // namespace
}  // namespace tessera
