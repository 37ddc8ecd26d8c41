#include <gmock/gmock.h>

#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "data/transforms/geometry.h"
#include "data/transforms/mix.h"
#include "data/transforms/pixel_ops.h"
#include "data/transforms/rand_augment.h"
#include "data/transforms/random_erasing.h"
#include "data/transforms/sample_transform.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Image RandomImage(int64_t height, int64_t width, uint64_t seed) {
  RandomStream random(seed, Purpose::kTest);
  Image image(height, width);
  for (int64_t i = 0; i < image.bytes(); ++i) {
    image.data()[i] = static_cast<uint8_t>(random.Next());
  }
  return image;
}

Image Flat(int64_t height, int64_t width, Rgb color) {
  Image image(height, width);
  for (int64_t i = 0; i < image.bytes(); ++i) image.data()[i] = color[i % 3];
  return image;
}

std::vector<int> Values(const ImageView& view) {
  std::vector<int> values;
  for (int64_t y = 0; y < view.height; ++y) {
    values.insert(values.end(), view.row(y), view.row(y) + 3 * view.width);
  }
  return values;
}

RandomStream Random(uint64_t seed) { return RandomStream(seed, Purpose::kTest); }

SampleTransform Create(const DataConfig& config, bool training) {
  auto transform = SampleTransform::Create(config, training);
  CHECK(transform.ok()) << transform.status();
  return *std::move(transform);
}

std::string CreateError(const DataConfig& config) {
  const auto transform = SampleTransform::Create(config, true);
  return transform.ok() ? "no error" : std::string(transform.status().message());
}

// ---- Operations on pixels.

class PixelOps : public OnEveryTarget {};

TEST_P(PixelOps, FactorOneAndNoMovementChangeNothing) {
  const Image image = RandomImage(13, 17, 1);
  for (const AugmentOp op :
       {AugmentOp::kColor, AugmentOp::kContrast, AugmentOp::kBrightness, AugmentOp::kSharpness}) {
    Image copy = Image::Copy(image);
    ApplyAugmentOp(op, 1.0, Filter::kBilinear, {}, &copy);
    EXPECT_EQ(Values(copy), Values(image));
  }
  for (const Filter filter : {Filter::kBilinear, Filter::kBicubic}) {
    EXPECT_EQ(Values(WarpAffine(image, AffineMap::Rotate(0, 13, 17), filter, {})), Values(image));
  }
}

TEST_P(PixelOps, TranslationMovesPixelsAndFillsWithTheColour) {
  const Image image = RandomImage(5, 6, 2);
  for (const Filter filter : {Filter::kBilinear, Filter::kBicubic}) {
    const Image moved = WarpAffine(image, AffineMap::Translate(2, 1), filter, {9, 8, 7});
    EXPECT_EQ(Values(moved.view().Crop({0, 0, 4, 4})), Values(image.view().Crop({1, 2, 4, 4})));
    EXPECT_EQ(Values(moved.view().Crop({4, 0, 1, 6})), Values(Flat(1, 6, {9, 8, 7})));
    EXPECT_EQ(Values(moved.view().Crop({0, 4, 5, 2})), Values(Flat(5, 2, {9, 8, 7})));
  }
}

TEST_P(PixelOps, AQuarterTurnIsCounterClockwise) {
  const Image image = RandomImage(8, 8, 3);
  const Image turned = WarpAffine(image, AffineMap::Rotate(90, 8, 8), Filter::kBilinear, {});
  for (int64_t y = 0; y < 8; ++y) {
    for (int64_t x = 0; x < 8; ++x) {
      for (int64_t c = 0; c < 3; ++c) {
        EXPECT_NEAR(turned.row(y)[3 * x + c], image.row(x)[3 * (7 - y) + c], 1);
      }
    }
  }
}

TEST_P(PixelOps, TinyImagesWork) {
  for (const auto& [height, width] : {std::pair{1, 1}, {1, 5}, {2, 2}, {5, 1}}) {
    for (int op = 0; op < kNumAugmentOps; ++op) {
      for (const double argument : {0.3, -0.3, 3.0, 200.0}) {
        Image image = RandomImage(height, width, 4);
        ApplyAugmentOp(static_cast<AugmentOp>(op), argument, Filter::kBicubic, {}, &image);
        EXPECT_EQ(image.height(), height);
      }
    }
  }
}

TEST_P(PixelOps, NormalisationIsThatOfPyTorch) {
  DataConfig config;
  config.image_size = 9;
  config.crop_pct = 1;
  const SampleTransform transform = Create(config, false);
  const Image image = RandomImage(9, 9, 5);
  std::vector<float> out(9 * 9 * 3);
  RandomStream random = Random(0);
  transform.Finish(image, random, out.data());
  const float mean[] = {0.485f, 0.456f, 0.406f};
  const float std[] = {0.229f, 0.224f, 0.225f};
  for (int i = 0; i < 9 * 9 * 3; ++i) {
    const float expected =
        (static_cast<float>(image.data()[i]) / 255.0f - mean[i % 3]) / std[i % 3];
    ASSERT_EQ(out[i], expected);
  }
}

INSTANTIATE_ON_EVERY_TARGET(PixelOps);

TEST(Flips, TurnRowsAndColumnsAround) {
  for (const int64_t width : {1, 2, 5}) {
    const Image image = RandomImage(3, width, 6);
    Image h = Image::Copy(image);
    FlipHorizontally(&h);
    Image v = Image::Copy(image);
    FlipVertically(&v);
    for (int64_t y = 0; y < 3; ++y) {
      for (int64_t i = 0; i < 3 * width; ++i) {
        EXPECT_EQ(h.row(y)[i], image.row(y)[3 * (width - 1 - i / 3) + i % 3]);
        EXPECT_EQ(v.row(y)[i], image.row(2 - y)[i]);
      }
    }
  }
}

TEST(Hue, AThirdOfATurnTakesRedToGreenAndLeavesGray) {
  Image red = Flat(1, 1, {255, 0, 0});
  AdjustHue(&red, 1.0 / 3);
  EXPECT_THAT(Values(red), ElementsAre(0, 255, 0));
  Image blue = Flat(1, 1, {0, 0, 200});
  AdjustHue(&blue, -1.0 / 3);
  EXPECT_THAT(Values(blue), ElementsAre(0, 200, 0));
  Image gray = Flat(1, 1, {90, 90, 90});
  AdjustHue(&gray, 0.37);
  EXPECT_THAT(Values(gray), ElementsAre(90, 90, 90));
  const Image image = RandomImage(20, 20, 7);
  Image turned = Image::Copy(image);
  AdjustHue(&turned, 0);  // only the rounding of the conversion is left
  for (int64_t i = 0; i < image.bytes(); ++i) {
    EXPECT_NEAR(turned.data()[i], image.data()[i], 7);
  }
}

// ---- RandAugment.

TEST(RandAugment, TheGrammarIsTimms) {
  const RandAugmentOptions o = *ParseRandAugment("rand-m9-mstd0.5-inc1-n3-p0.25-mmax8");
  EXPECT_EQ(o.magnitude, 9);
  EXPECT_EQ(o.num_layers, 3);
  EXPECT_EQ(o.probability, 0.25);
  EXPECT_EQ(o.magnitude_std, 0.5);
  EXPECT_EQ(o.magnitude_max, 8);
  EXPECT_TRUE(o.increasing);
  const RandAugmentOptions defaults = *ParseRandAugment("rand");
  EXPECT_EQ(defaults.magnitude, 10);
  EXPECT_EQ(defaults.num_layers, 2);
  EXPECT_EQ(defaults.probability, 0.5);
  EXPECT_FALSE(defaults.increasing);
  const RandAugmentOptions strong = *ParseRandAugment("rand-m15-n2-p1-mmax15");
  EXPECT_EQ(strong.magnitude, 15);
  EXPECT_EQ(strong.magnitude_max, 15);
  for (const char* bad : {"", "augmix-m3", "rand-", "rand-x1", "rand-m", "rand-m1.5", "rand-m-1",
                          "rand-m99", "rand-p2", "rand-inc0.5", "rand-mstdx", "rand-nnan"}) {
    EXPECT_FALSE(ParseRandAugment(bad).ok()) << bad;
  }
}

TEST(RandAugment, ProbabilityZeroNeverActs) {
  const Image image = RandomImage(16, 16, 8);
  RandAugmentOptions options;
  options.probability = 0;
  RandomStream random = Random(1);
  for (int i = 0; i < 20; ++i) {
    Image copy = Image::Copy(image);
    RandAugment(options, std::nullopt, {}).Apply(&copy, random);
    EXPECT_EQ(Values(copy), Values(image));
  }
}

TEST(RandAugment, ArgumentsFollowTheMagnitude) {
  EXPECT_DOUBLE_EQ(AugmentArgument(AugmentOp::kRotate, 5, false, true), 15);
  EXPECT_DOUBLE_EQ(AugmentArgument(AugmentOp::kRotate, 5, true, true), -15);
  EXPECT_EQ(AugmentArgument(AugmentOp::kPosterize, 9, false, true), 1);
  EXPECT_EQ(AugmentArgument(AugmentOp::kPosterize, 9, false, false), 3);
  EXPECT_EQ(AugmentArgument(AugmentOp::kSolarize, 10, false, true), 0);
  EXPECT_DOUBLE_EQ(AugmentArgument(AugmentOp::kRotate, 15, false, false), 45);
  EXPECT_EQ(AugmentArgument(AugmentOp::kPosterize, 15, false, false), 6);
  EXPECT_EQ(AugmentArgument(AugmentOp::kSolarize, 15, false, true), 0);
  EXPECT_EQ(AugmentArgument(AugmentOp::kSolarizeAdd, 15, false, true), 128);
  EXPECT_NEAR(AugmentArgument(AugmentOp::kColor, 10, true, true), 0.1, 1e-12);
}

// ---- Random erasing.

TEST(Erasing, ErasesTheWantedShareWithNoiseOfUnitVariance) {
  constexpr int64_t kSide = 64;
  ErasingOptions options{.probability = 0.25};
  RandomStream random = Random(2);
  int erased = 0;
  double sum = 0;
  double squares = 0;
  int64_t count = 0;
  for (int i = 0; i < 2000; ++i) {
    std::vector<float> image(kSide * kSide * 3, 100.0f);
    EraseRandomly(options, kSide, kSide, image.data(), random);
    int64_t changed = 0;
    for (const float v : image) {
      if (v == 100.0f) continue;
      ++changed;
      sum += v;
      squares += double{v} * v;
    }
    erased += changed > 0;
    count += changed;
    const double share = static_cast<double>(changed) / static_cast<double>(image.size());
    EXPECT_LT(share, 0.36);
  }
  EXPECT_NEAR(erased, 500, 80);
  const auto n = static_cast<double>(count);
  EXPECT_NEAR(sum / n, 0, 0.01);
  EXPECT_NEAR(squares / n, 1, 0.01);
}

TEST(Erasing, FillsWithZerosOrOneColour) {
  for (const ErasingFill fill : {ErasingFill::kZero, ErasingFill::kOneColor}) {
    std::vector<float> image(32 * 32 * 3, 100.0f);
    RandomStream random = Random(3);
    EraseRandomly({.probability = 1, .fill = fill}, 32, 32, image.data(), random);
    std::set<float> colors[3];
    for (size_t i = 0; i < image.size(); ++i) {
      if (image[i] != 100.0f) colors[i % 3].insert(image[i]);
    }
    for (const auto& values : colors) EXPECT_EQ(values.size(), 1u);
    EXPECT_EQ(*colors[0].begin() == 0.0f, fill == ErasingFill::kZero);
  }
}

// ---- Mixing.

TEST(Mix, TheModesShareDrawsByBatchByPairOrNotAtAll) {
  constexpr int64_t kBatch = 8;
  for (const MixMode mode : {MixMode::kBatch, MixMode::kPair, MixMode::kElement}) {
    RandomStream random = Random(4);
    const auto draws = DrawMix({.mixup_alpha = 0.8, .mode = mode}, kBatch, 16, 16, random);
    ASSERT_EQ(draws.size(), kBatch);
    std::set<double> different;
    for (int64_t i = 0; i < kBatch; ++i) {
      different.insert(draws[i].lambda);
      if (mode != MixMode::kElement) {
        EXPECT_EQ(draws[i].lambda, draws[kBatch - 1 - i].lambda);
      }
    }
    EXPECT_EQ(different.size(), mode == MixMode::kBatch ? 1u : mode == MixMode::kPair ? 4u : 8u);
  }
}

TEST(Mix, LambdaIsTheShareOutsideTheBox) {
  RandomStream random = Random(5);
  int cutmix = 0;
  double mean = 0;
  for (int i = 0; i < 2000; ++i) {
    const MixDraw d = DrawMix({.mixup_alpha = 0.8, .cutmix_alpha = 1.0}, 2, 20, 30, random).front();
    EXPECT_GE(d.lambda, 0);
    EXPECT_LE(d.lambda, 1);
    mean += d.lambda / 2000;
    if (!d.cutmix) continue;
    ++cutmix;
    EXPECT_DOUBLE_EQ(d.lambda, 1.0 - static_cast<double>(d.box.height * d.box.width) / 600);
  }
  EXPECT_NEAR(cutmix, 1000, 120);
  EXPECT_NEAR(mean, 0.55, 0.06);  // clipped boxes raise cutmix's above a half
}

TEST(Mix, ProbabilityLeavesBatchesAlone) {
  RandomStream random = Random(6);
  int mixed = 0;
  for (int i = 0; i < 1000; ++i) {
    mixed += DrawMix({.mixup_alpha = 1, .probability = 0.3}, 2, 4, 4, random)[0].lambda < 1;
  }
  EXPECT_NEAR(mixed, 300, 60);
}

TEST(Mix, PartnersMixIntoEachOther) {
  std::vector<float> a(4 * 4 * 3, 1.0f);
  const std::vector<float> b(4 * 4 * 3, 3.0f);
  MixInto({.lambda = 0.25}, 4, 4, b.data(), a.data());
  for (const float v : a) EXPECT_FLOAT_EQ(v, 2.5f);
  MixInto({.lambda = 0.5, .cutmix = true, .box = {1, 2, 2, 1}}, 4, 4, b.data(), a.data());
  for (int64_t i = 0; i < 16; ++i) {
    const bool inside = (i / 4 == 1 || i / 4 == 2) && i % 4 == 2;
    EXPECT_FLOAT_EQ(a[3 * i], inside ? 3.0f : 2.5f);
  }
}

TEST(SoftTarget, SumsToOneForSameAndDifferentClasses) {
  for (const int64_t partner : {0, 2}) {
    std::vector<float> row(5);
    SoftTarget(0, partner, 0.7, 5, 0.1, row.data());
    EXPECT_NEAR(std::accumulate(row.begin(), row.end(), 0.0), 1.0, 1e-6);
    EXPECT_NEAR(row[1], 0.02, 1e-7);
    EXPECT_NEAR(row[0], partner == 0 ? 0.92 : 0.7 * 0.92 + 0.3 * 0.02, 1e-7);
  }
}

// ---- Whole transforms.

TEST(Evaluation, PadsWithZerosWhereThePictureIsTooSmall) {
  DataConfig config;
  config.image_size = 10;
  config.crop_pct = 1.25;  // resized to 8
  RandomStream random = Random(0);
  const Image out = Create(config, false).Apply(Flat(4, 8, {7, 7, 7}), random);
  ASSERT_EQ(out.height(), 10);
  for (int64_t y = 0; y < 10; ++y) {
    // 8 rows of 16 columns, of which the middle 10 are shown.
    EXPECT_EQ(Values(out.view().Crop({y, 0, 1, 10})),
              Values(Flat(1, 10, y >= 1 && y < 9 ? Rgb{7, 7, 7} : Rgb{0, 0, 0})));
  }
}

TEST(Evaluation, SquashIgnoresTheAspectRatio) {
  DataConfig config;
  config.image_size = 8;
  config.crop_pct = 1;
  config.crop_mode = "squash";
  RandomStream random = Random(0);
  const Image image = RandomImage(31, 12, 9);
  EXPECT_EQ(Values(Create(config, false).Apply(image, random)),
            Values(Resize(image, {.height = 8, .width = 8})));
}

TEST(Training, RandomResizedCropStaysInsideAndCoversItsRange) {
  DataConfig config;
  const SampleTransform transform = Create(config, true);
  double least = 1;
  double most = 0;
  for (uint64_t i = 0; i < 3000; ++i) {
    RandomStream random = Random(i);
    const Rect r = transform.ChooseRegion(100, 140, random);
    EXPECT_TRUE(r.top >= 0 && r.left >= 0 && r.top + r.height <= 100 && r.left + r.width <= 140);
    const double share = static_cast<double>(r.height * r.width) / 14000;
    least = std::min(least, share);
    most = std::max(most, share);
    const double aspect = static_cast<double>(r.width) / static_cast<double>(r.height);
    EXPECT_GT(aspect, 0.72);
    EXPECT_LT(aspect, 1.40);
  }
  EXPECT_NEAR(least, 0.08, 0.01);
  EXPECT_GT(most, 0.9);
  for (const auto& [height, width] : {std::pair{1, 1}, {1, 300}, {300, 1}, {2, 2}}) {
    RandomStream random = Random(1);
    const Rect r = transform.ChooseRegion(height, width, random);
    EXPECT_TRUE(r.height > 0 && r.width > 0);
    EXPECT_EQ(transform.Apply(Flat(r.height, r.width, {1, 2, 3}), random).height(), 224);
  }
}

TEST(Training, FlipsHalfOfThePictures) {
  DataConfig config;
  config.image_size = 2;
  config.pad_crop = 0;
  config.scale = {1, 1};
  config.ratio = {1, 1};
  config.color_jitter = {};
  Image image = Flat(2, 2, {0, 0, 0});
  image.row(0)[0] = 255;
  int flipped = 0;
  const SampleTransform transform = Create(config, true);
  for (uint64_t i = 0; i < 1000; ++i) {
    RandomStream random = Random(i);
    flipped += transform.Apply(image, random).row(0)[3] == 255;
  }
  EXPECT_NEAR(flipped, 500, 70);
}

TEST(Training, PadAndCropShiftsByAtMostThePadding) {
  DataConfig config;
  config.image_size = 8;
  config.pad_crop = 2;
  config.hflip = 0;
  config.color_jitter = {};
  const Image image = RandomImage(8, 8, 10);
  std::map<std::pair<int, int>, int> shifts;
  const SampleTransform transform = Create(config, true);
  for (uint64_t i = 0; i < 500; ++i) {
    RandomStream random = Random(i);
    EXPECT_EQ(transform.ChooseRegion(8, 8, random), (Rect{0, 0, 8, 8}));
    const Image out = transform.Apply(image, random);
    for (int dy = -2; dy <= 2; ++dy) {
      for (int dx = -2; dx <= 2; ++dx) {
        Rect to{std::max(0, -dy), std::max(0, -dx), 8 - std::abs(dy), 8 - std::abs(dx)};
        const Rect from{std::max(0, dy), std::max(0, dx), to.height, to.width};
        if (Values(out.view().Crop(to)) == Values(image.view().Crop(from))) ++shifts[{dy, dx}];
      }
    }
  }
  EXPECT_EQ(shifts.size(), 25u);
  int total = 0;
  for (const auto& [shift, times] : shifts) total += times;
  EXPECT_EQ(total, 500);
}

TEST(Training, ColorJitterUsesItsRange) {
  DataConfig config;
  config.image_size = 1;
  config.color_jitter = {0.5, 0, 0};
  int least = 255;
  int most = 0;
  const SampleTransform transform = Create(config, true);
  for (uint64_t i = 0; i < 500; ++i) {
    RandomStream random = Random(i);
    const int value = transform.Apply(Flat(1, 1, {100, 100, 100}), random).data()[0];
    least = std::min(least, value);
    most = std::max(most, value);
  }
  EXPECT_NEAR(least, 50, 2);
  EXPECT_NEAR(most, 150, 2);
}

TEST(Training, OtherResamplersGiveTheSameSize) {
  for (const char* resampler : {"cv-area", "cv-linear"}) {
    DataConfig config;
    config.image_size = 16;
    config.resampler = resampler;
    RandomStream random = Random(1);
    const Image image = RandomImage(40, 30, 11);
    EXPECT_EQ(Create(config, true).Apply(image, random).width(), 16);
    EXPECT_EQ(Create(config, false).Apply(image, random).width(), 16);
  }
}

TEST(Config, WrongValuesAreErrorsThatNameTheField) {
  const auto error = [](auto change) {
    DataConfig config;
    change(config);
    return CreateError(config);
  };
  EXPECT_THAT(error([](DataConfig& c) { c.mean = {1}; }), HasSubstr("data.mean"));
  EXPECT_THAT(error([](DataConfig& c) { c.std = {1, 1, 0}; }), HasSubstr("data.std"));
  EXPECT_THAT(error([](DataConfig& c) { c.scale = {0.5, 0.1}; }), HasSubstr("data.scale"));
  EXPECT_THAT(error([](DataConfig& c) { c.ratio = {1}; }), HasSubstr("data.ratio"));
  EXPECT_THAT(error([](DataConfig& c) { c.color_jitter = {1, 2}; }), HasSubstr("color_jitter"));
  EXPECT_THAT(error([](DataConfig& c) { c.color_jitter = {0, 0, 0, 0.6}; }), HasSubstr("hue"));
  EXPECT_THAT(error([](DataConfig& c) { c.crop_pct = 1e6; }), HasSubstr("crop_pct"));
  EXPECT_THAT(error([](DataConfig& c) { c.auto_augment = "rand-q1"; }), HasSubstr("q1"));
}

}  // namespace
}  // namespace tessera
