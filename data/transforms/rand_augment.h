// RandAugment (Cubuk et al., 2019) in timm's form, configured by strings such as
// rand-m9-mstd0.5-inc1.
#ifndef TESSERA_DATA_TRANSFORMS_RAND_AUGMENT_H_
#define TESSERA_DATA_TRANSFORMS_RAND_AUGMENT_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/random.h"
#include "data/image.h"
#include "data/transforms/pixel_ops.h"

namespace tessera {

enum class AugmentOp {
  kAutoContrast,
  kEqualize,
  kInvert,
  kRotate,
  kPosterize,
  kSolarize,
  kSolarizeAdd,
  kColor,
  kContrast,
  kBrightness,
  kSharpness,
  kShearX,
  kShearY,
  kTranslateX,
  kTranslateY,
};
inline constexpr int kNumAugmentOps = 15;

struct RandAugmentOptions {
  int64_t magnitude = 10;      // m
  int64_t num_layers = 2;      // n
  double probability = 0.5;    // p, of each layer
  double magnitude_std = 0.0;  // mstd; above 100 the magnitude is uniform in 0..m
  double magnitude_max = 10;   // mmax, what magnitudes are cut off at
  bool increasing = false;     // inc: severity grows with the magnitude for every operation
};

// Parses "rand" and dash-separated fields m, n, p, mstd, mmax, inc, each with its number.
// ConfigError naming the field.
absl::StatusOr<RandAugmentOptions> ParseRandAugment(absl::string_view text);

// What an operation is called with at a magnitude, of which 10 is full strength: degrees, bits,
// threshold, addend, factor, shear, or share of the side, by operation; 0 for those that take none.
// `negative` is the drawn sign.
double AugmentArgument(AugmentOp op, double magnitude, bool negative, bool increasing);

class RandAugment {
 public:
  // `filter` is kBilinear or kBicubic for the geometric operations; without it each call draws one.
  // `fill` is the colour of what comes from outside.
  RandAugment(const RandAugmentOptions& options, std::optional<Filter> filter, Rgb fill)
      : options_(options), filter_(filter), fill_(fill) {}

  void Apply(Image* image, RandomStream& random) const;

 private:
  double DrawMagnitude(RandomStream& random) const;

  RandAugmentOptions options_;
  std::optional<Filter> filter_;
  Rgb fill_;
};

// Runs one operation; `filter` matters for the geometric ones.
void ApplyAugmentOp(AugmentOp op, double argument, Filter filter, Rgb fill, Image* image);

}  // namespace tessera

#endif  // TESSERA_DATA_TRANSFORMS_RAND_AUGMENT_H_
