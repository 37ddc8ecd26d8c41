#include "data/transforms/sample_transform.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <opencv2/imgproc.hpp>
#include <utility>

#include "core/status.h"
#include "data/transforms/geometry.h"
#include "data/transforms/pixel_ops.h"
#include "data/transforms/pixel_simd.h"

namespace tessera {
namespace {

constexpr int kCropTries = 10;

struct NamedNormalization {
  absl::string_view name;
  Normalization values;
};
constexpr NamedNormalization kNormalizations[] = {
    {"imagenet", {{0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}}},
    {"inception", {{0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}}},
    {"cifar10", {{0.4914f, 0.4822f, 0.4465f}, {0.2470f, 0.2435f, 0.2616f}}},
};

// A range given as two ascending numbers.
absl::StatusOr<std::array<double, 2>> Range(absl::string_view field,
                                            const std::vector<double>& values) {
  if (values.size() != 2 || values[0] > values[1] || values[0] <= 0.0) {
    return ConfigError(absl::StrCat(
        "data.", field, ": expected two positive ascending numbers, as in [0.08, 1.0]"));
  }
  return std::array<double, 2>{values[0], values[1]};
}

absl::StatusOr<std::array<double, 4>> ColorJitter(const std::vector<double>& v) {
  std::array<double, 4> result = {};
  if (v.size() == 1) {
    result = {v[0], v[0], v[0], 0.0};
  } else if (v.size() == 3 || v.size() == 4) {
    std::copy(v.begin(), v.end(), result.begin());
  } else if (!v.empty()) {
    return ConfigError(absl::StrCat("data.color_jitter: found ", v.size(),
                                    " numbers, expected 0, 1, 3 or 4 of them"));
  }
  if (result[3] > 0.5) return ConfigError("data.color_jitter: hue must be at most 0.5");
  return result;
}

Resampler ParseResampler(absl::string_view name) {
  if (name == "cv-area") return Resampler::kCvArea;
  return name == "cv-linear" ? Resampler::kCvLinear : Resampler::kPillow;
}

Image ResizeWithOpenCv(const ImageView& source, const ResizeOptions& options, int interpolation) {
  const cv::Mat in(static_cast<int>(source.height), static_cast<int>(source.width), CV_8UC3,
                   const_cast<uint8_t*>(source.data), source.stride);
  Image whole(options.height, options.width);
  cv::Mat out(static_cast<int>(options.height), static_cast<int>(options.width), CV_8UC3,
              whole.data());
  cv::resize(in, out, out.size(), 0, 0, interpolation);
  return options.crop.has_value() ? Image::Copy(whole.view().Crop(*options.crop))
                                  : std::move(whole);
}

// Draws the factor of one jitter operation and applies it.
void JitterOne(int op, double amount, Image* image, RandomStream& random) {
  if (amount == 0.0) return;
  if (op == 3) return AdjustHue(image, random.Uniform(-amount, amount));
  const double factor = random.Uniform(std::max(0.0, 1.0 - amount), 1.0 + amount);
  if (op == 0) return AdjustBrightness(image, factor);
  if (op == 1) return AdjustContrast(image, factor);
  AdjustSaturation(image, factor);
}

}  // namespace

absl::StatusOr<Normalization> ResolveNormalization(const DataConfig& config) {
  Normalization result = {};
  for (const NamedNormalization& known : kNormalizations) {
    if (config.normalization == std::string(known.name)) result = known.values;
  }
  for (const auto* values : {&config.mean, &config.std}) {
    if (values->empty()) continue;
    if (values->size() != 3) {
      return ConfigError(absl::StrCat("data.mean and data.std: found ", values->size(),
                                      " numbers, expected 3 (red, green, blue)"));
    }
    auto& target = values == &config.mean ? result.mean : result.std;
    std::transform(values->begin(), values->end(), target.begin(),
                   [](double x) { return static_cast<float>(x); });
  }
  if (std::any_of(result.std.begin(), result.std.end(), [](float s) { return !(s > 0.0f); })) {
    return ConfigError(absl::StrCat("data.std: every number must be positive; normalization is '",
                                    config.normalization, "'"));
  }
  return result;
}

absl::StatusOr<SampleTransform> SampleTransform::Create(const DataConfig& config, bool training) {
  SampleTransform t;
  t.training_ = training;
  t.image_size_ = config.image_size;
  ASSIGN_OR_RETURN(t.normalization_, ResolveNormalization(config));
  t.resampler_ = ParseResampler(config.resampler);
  const std::string& filter = training ? config.train_interpolation : config.interpolation;
  t.random_filter_ = filter == "random";
  if (!t.random_filter_) {
    ASSIGN_OR_RETURN(t.filter_, ParseFilter(filter));
  }
  t.crop_pct_ = config.crop_pct;
  t.squash_ = config.crop_mode == "squash";
  if (static_cast<double>(config.image_size) / config.crop_pct < 1.0) {
    return ConfigError("data.crop_pct: too large, nothing would be left of the picture");
  }
  if (!training) return t;

  ASSIGN_OR_RETURN(t.scale_, Range("scale", config.scale));
  ASSIGN_OR_RETURN(t.ratio_, Range("ratio", config.ratio));
  t.pad_crop_ = config.pad_crop;
  t.hflip_ = config.hflip;
  t.vflip_ = config.vflip;
  if (config.auto_augment.empty()) {
    ASSIGN_OR_RETURN(t.color_jitter_, ColorJitter(config.color_jitter));
  } else {
    ASSIGN_OR_RETURN(const RandAugmentOptions options, ParseRandAugment(config.auto_augment));
    Rgb fill;
    for (int c = 0; c < 3; ++c) {
      fill[c] = static_cast<uint8_t>(
          std::clamp(std::nearbyint(255.0 * t.normalization_.mean[c]), 0.0, 255.0));
    }
    std::optional<Filter> warp_filter;
    if (!t.random_filter_) {
      warp_filter = t.filter_ == Filter::kBilinear ? Filter::kBilinear : Filter::kBicubic;
    }
    t.rand_augment_.emplace(options, warp_filter, fill);
  }
  t.erasing_ = {config.reprob,
                config.remode == "const"  ? ErasingFill::kZero
                : config.remode == "rand" ? ErasingFill::kOneColor
                                          : ErasingFill::kPixelNoise,
                config.recount};
  return t;
}

Rect SampleTransform::ChooseRegion(int64_t height, int64_t width, RandomStream& random) const {
  if (!training_ || pad_crop_ > 0) return {0, 0, height, width};
  const double log_low = std::log(ratio_[0]);
  const double log_high = std::log(ratio_[1]);
  for (int i = 0; i < kCropTries; ++i) {
    const double area = random.Uniform(scale_[0], scale_[1]);
    const AreaDraw draw{area, std::exp(random.Uniform(log_low, log_high))};
    const std::optional<BoxSize> size = RandomResizedCropSize(height, width, draw);
    if (!size.has_value()) continue;
    const int64_t top = random.Integer(0, height - size->height);
    const int64_t left = random.Integer(0, width - size->width);
    return {top, left, size->height, size->width};
  }
  return RandomResizedCropFallback(height, width, ratio_[0], ratio_[1]);
}

Image SampleTransform::Resized(const ImageView& source, const ResizeOptions& options) const {
  if (resampler_ == Resampler::kPillow) return Resize(source, options);
  return ResizeWithOpenCv(source, options,
                          resampler_ == Resampler::kCvArea ? cv::INTER_AREA : cv::INTER_LINEAR);
}

Image SampleTransform::Evaluate(const ImageView& source) const {
  EvalGeometry g = ComputeEvalGeometry(source.height, source.width, image_size_, crop_pct_);
  if (squash_) {
    const auto side = static_cast<int64_t>(static_cast<double>(image_size_) / crop_pct_);
    g = ComputeEvalGeometry(side, side, image_size_, crop_pct_);
  }
  // Rows and columns of the resized picture that the crop shows, and where they go.
  const int64_t top = std::max<int64_t>(g.top, 0);
  const int64_t left = std::max<int64_t>(g.left, 0);
  const Rect part{top, left, std::min(image_size_, g.resized_height),
                  std::min(image_size_, g.resized_width)};
  Image cut = Resized(
      source,
      {.height = g.resized_height, .width = g.resized_width, .filter = filter_, .crop = part});
  if (cut.height() == image_size_ && cut.width() == image_size_) return cut;
  Image padded(image_size_, image_size_);
  std::memset(padded.data(), 0, padded.bytes());
  for (int64_t y = 0; y < cut.height(); ++y) {
    std::memcpy(padded.row(top - g.top + y) + 3 * (left - g.left), cut.row(y), 3 * cut.width());
  }
  return padded;
}

Image SampleTransform::PadAndCrop(const ImageView& source, RandomStream& random) const {
  const int64_t top = random.Integer(0, 2 * pad_crop_) - pad_crop_;
  const int64_t left = random.Integer(0, 2 * pad_crop_) - pad_crop_;
  Image resized;
  ImageView from = source;
  if (source.height != image_size_ || source.width != image_size_) {
    resized = Resized(source, {.height = image_size_, .width = image_size_, .filter = filter_});
    from = resized.view();
  }
  Image out(image_size_, image_size_);
  std::memset(out.data(), 0, out.bytes());
  const int64_t first_x = std::clamp<int64_t>(-left, 0, image_size_);
  const int64_t last_x = std::clamp<int64_t>(image_size_ - left, first_x, image_size_);
  for (int64_t y = 0; y < image_size_; ++y) {
    if (y + top < 0 || y + top >= image_size_) continue;
    std::memcpy(out.row(y) + 3 * first_x, from.row(y + top) + 3 * (first_x + left),
                3 * (last_x - first_x));
  }
  return out;
}

void SampleTransform::JitterColor(Image* image, RandomStream& random) const {
  std::array<int, 4> order = {0, 1, 2, 3};
  for (int64_t i = 3; i > 0; --i) std::swap(order[i], order[random.Integer(0, i)]);
  for (const int op : order) JitterOne(op, color_jitter_[op], image, random);
}

Image SampleTransform::Apply(const ImageView& region, RandomStream& random) const {
  if (!training_) return Evaluate(region);
  Image image;
  if (pad_crop_ > 0) {
    image = PadAndCrop(region, random);
  } else {
    const Filter drawn = random.Bernoulli(0.5) ? Filter::kBilinear : Filter::kBicubic;
    image = Resized(
        region,
        {.height = image_size_, .width = image_size_, .filter = random_filter_ ? drawn : filter_});
  }
  if (random.Bernoulli(hflip_)) FlipHorizontally(&image);
  if (random.Bernoulli(vflip_)) FlipVertically(&image);
  if (rand_augment_.has_value()) {
    rand_augment_->Apply(&image, random);
  } else if (color_jitter_ != std::array<double, 4>{}) {
    JitterColor(&image, random);
  }
  return image;
}

void SampleTransform::Finish(const Image& image, RandomStream& random, float* out) const {
  internal::Normalize(image.data(), image.height() * image.width(), normalization_.mean.data(),
                      normalization_.std.data(), out);
  if (training_ && erasing_.probability > 0.0) {
    EraseRandomly(erasing_, image_size_, image_size_, out, random);
  }
}

}  // namespace tessera
