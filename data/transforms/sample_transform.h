// From a decoded picture to the normalised square that the model sees, for training or evaluation.
//
// A sample passes three steps, all of which draw from the sample's own RandomStream in this order:
// ChooseRegion (so that only the crop has to be decoded), Apply (8-bit) and Finish (float).
#ifndef TESSERA_DATA_TRANSFORMS_SAMPLE_TRANSFORM_H_
#define TESSERA_DATA_TRANSFORMS_SAMPLE_TRANSFORM_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/status/statusor.h"
#include "core/random.h"
#include "data/config.h"
#include "data/image.h"
#include "data/resample.h"
#include "data/transforms/rand_augment.h"
#include "data/transforms/random_erasing.h"

namespace tessera {

struct Normalization {
  std::array<float, 3> mean;
  std::array<float, 3> std;
};
// The numbers that config.normalization, mean and std stand for.
absl::StatusOr<Normalization> ResolveNormalization(const DataConfig& config);

enum class Resampler { kPillow, kCvArea, kCvLinear };

class SampleTransform {
 public:
  // ConfigError naming the field that is wrong.
  static absl::StatusOr<SampleTransform> Create(const DataConfig& config, bool training);

  int64_t image_size() const { return image_size_; }
  const Normalization& normalization() const { return normalization_; }

  // The part of a picture of this size that Apply wants to be given.
  Rect ChooseRegion(int64_t height, int64_t width, RandomStream& random) const;
  // The chosen region as an image of image_size squared, resized, flipped and coloured.
  Image Apply(const ImageView& region, RandomStream& random) const;
  // Normalises `image` to out[image_size, image_size, 3], and erases boxes in training.
  void Finish(const Image& image, RandomStream& random, float* out) const;

 private:
  Image Resized(const ImageView& source, const ResizeOptions& options) const;
  Image Evaluate(const ImageView& source) const;
  Image PadAndCrop(const ImageView& source, RandomStream& random) const;
  void JitterColor(Image* image, RandomStream& random) const;

  bool training_ = false;
  int64_t image_size_ = 0;
  Normalization normalization_ = {};
  Resampler resampler_ = Resampler::kPillow;
  Filter filter_ = Filter::kBicubic;
  // Evaluation.
  double crop_pct_ = 1.0;
  bool squash_ = false;
  // Training.
  bool random_filter_ = false;
  std::array<double, 2> scale_ = {};
  std::array<double, 2> ratio_ = {};
  int64_t pad_crop_ = 0;
  double hflip_ = 0.0;
  double vflip_ = 0.0;
  std::array<double, 4> color_jitter_ = {};  // brightness, contrast, saturation, hue
  std::optional<RandAugment> rand_augment_;
  ErasingOptions erasing_;
};

}  // namespace tessera

#endif  // TESSERA_DATA_TRANSFORMS_SAMPLE_TRANSFORM_H_
