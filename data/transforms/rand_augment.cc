#include "data/transforms/rand_augment.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "core/status.h"

namespace tessera {
namespace {

constexpr double kFullMagnitude = 10.0;  // the scale of arguments
constexpr double kLargestMagnitude = 30.0;
constexpr double kUniformMagnitude =
    100.0;  // a standard deviation above this asks for uniform magnitudes

absl::Status FieldError(absl::string_view text, absl::string_view field, absl::string_view why) {
  return ConfigError(absl::StrCat("auto_augment '", text, "': field '", field, "' ", why,
                                  "; expected something like rand-m9-mstd0.5-inc1"));
}

struct Field {
  absl::string_view key;
  double* value;
  double min;
  double max;
};

}  // namespace

absl::StatusOr<RandAugmentOptions> ParseRandAugment(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '-');
  if (parts[0] != "rand") return FieldError(text, parts[0], "is no known policy");
  RandAugmentOptions options;
  double magnitude = static_cast<double>(options.magnitude);
  double layers = static_cast<double>(options.num_layers);
  double increasing = 0;
  // "m" comes last: the longer names start with it.
  const Field fields[] = {
      {"mstd", &options.magnitude_std, 0, std::numeric_limits<double>::max()},
      {"mmax", &options.magnitude_max, 0, kLargestMagnitude},
      {"inc", &increasing, 0, 1},
      {"n", &layers, 0, 100},
      {"p", &options.probability, 0, 1},
      {"m", &magnitude, 0, kLargestMagnitude},
  };
  for (size_t i = 1; i < parts.size(); ++i) {
    const absl::string_view part = parts[i];
    const Field* field = std::find_if(std::begin(fields), std::end(fields), [part](const Field& f) {
      return absl::StartsWith(part, f.key);
    });
    if (field == std::end(fields)) return FieldError(text, part, "is unknown");
    double value = 0;
    if (!absl::SimpleAtod(part.substr(field->key.size()), &value) ||
        !(value >= field->min && value <= field->max)) {
      return FieldError(text, part,
                        absl::StrCat("has no number within ", field->min, "..", field->max));
    }
    *field->value = value;
  }
  options.magnitude = static_cast<int64_t>(magnitude);
  options.num_layers = static_cast<int64_t>(layers);
  options.increasing = increasing != 0;
  if (static_cast<double>(options.magnitude) != magnitude ||
      static_cast<double>(options.num_layers) != layers || (increasing != 0 && increasing != 1)) {
    return FieldError(text, text, "needs whole numbers for m, n and inc");
  }
  return options;
}

double AugmentArgument(AugmentOp op, double magnitude, bool negative, bool increasing) {
  const double t = magnitude / kFullMagnitude;
  const double sign = negative ? -1.0 : 1.0;
  switch (op) {
    case AugmentOp::kAutoContrast:
    case AugmentOp::kEqualize:
    case AugmentOp::kInvert:
      return 0.0;
    case AugmentOp::kRotate:
      return sign * 30.0 * t;
    case AugmentOp::kPosterize: {
      const int bits = static_cast<int>(4.0 * t);
      return increasing ? 4 - bits : bits;
    }
    case AugmentOp::kSolarize: {
      const int threshold = std::min(256, static_cast<int>(256.0 * t));
      return increasing ? 256 - threshold : threshold;
    }
    case AugmentOp::kSolarizeAdd:
      return std::min(128, static_cast<int>(110.0 * t));
    case AugmentOp::kColor:
    case AugmentOp::kContrast:
    case AugmentOp::kBrightness:
    case AugmentOp::kSharpness:
      return increasing ? std::max(0.1, 1.0 + sign * 0.9 * t) : 1.8 * t + 0.1;
    case AugmentOp::kShearX:
    case AugmentOp::kShearY:
      return sign * 0.3 * t;
    case AugmentOp::kTranslateX:
    case AugmentOp::kTranslateY:
      return sign * 0.45 * t;
  }
  return 0.0;
}

void ApplyAugmentOp(AugmentOp op, double argument, Filter filter, Rgb fill, Image* image) {
  const auto warp = [&](const AffineMap& map) { *image = WarpAffine(*image, map, filter, fill); };
  const auto whole = static_cast<int>(argument);
  switch (op) {
    case AugmentOp::kAutoContrast:
      return AutoContrast(image);
    case AugmentOp::kEqualize:
      return Equalize(image);
    case AugmentOp::kInvert:
      return Invert(image);
    case AugmentOp::kRotate:
      return warp(AffineMap::Rotate(argument, image->height(), image->width()));
    case AugmentOp::kPosterize:
      return Posterize(image, whole);
    case AugmentOp::kSolarize:
      return Solarize(image, whole);
    case AugmentOp::kSolarizeAdd:
      return SolarizeAdd(image, whole);
    case AugmentOp::kColor:
      return AdjustSaturation(image, argument);
    case AugmentOp::kContrast:
      return AdjustContrast(image, argument);
    case AugmentOp::kBrightness:
      return AdjustBrightness(image, argument);
    case AugmentOp::kSharpness:
      return AdjustSharpness(image, argument);
    case AugmentOp::kShearX:
      return warp(AffineMap::ShearX(argument));
    case AugmentOp::kShearY:
      return warp(AffineMap::ShearY(argument));
    case AugmentOp::kTranslateX:
      return warp(AffineMap::Translate(argument * static_cast<double>(image->width()), 0.0));
    case AugmentOp::kTranslateY:
      return warp(AffineMap::Translate(0.0, argument * static_cast<double>(image->height())));
  }
}

double RandAugment::DrawMagnitude(RandomStream& random) const {
  auto magnitude = static_cast<double>(options_.magnitude);
  if (options_.magnitude_std > kUniformMagnitude) {
    magnitude = random.Uniform(0.0, magnitude);
  } else if (options_.magnitude_std > 0.0) {
    magnitude += options_.magnitude_std * random.Normal();
  }
  return std::clamp(magnitude, 0.0, options_.magnitude_max);
}

void RandAugment::Apply(Image* image, RandomStream& random) const {
  for (int64_t layer = 0; layer < options_.num_layers; ++layer) {
    const auto op = static_cast<AugmentOp>(random.Integer(0, kNumAugmentOps - 1));
    if (!random.Bernoulli(options_.probability)) continue;
    const double magnitude = DrawMagnitude(random);
    const bool negative = random.Bernoulli(0.5);
    const Filter drawn = random.Bernoulli(0.5) ? Filter::kBilinear : Filter::kBicubic;
    ApplyAugmentOp(op, AugmentArgument(op, magnitude, negative, options_.increasing),
                   filter_.value_or(drawn), fill_, image);
  }
}

}  // namespace tessera
