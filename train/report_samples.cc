#include <algorithm>

#include "core/random.h"
#include "data/transforms/sample_transform.h"
#include "tensor/ops/softmax/softmax.h"
#include "tensor/ops/top_k/top_k.h"
#include "train/attention_picture.h"
#include "train/picture.h"
#include "train/report.h"

namespace tessera::train {
namespace {

constexpr int64_t kSamples = 16;
constexpr int64_t kWithAttention = 2;
constexpr int64_t kGuesses = 3;
constexpr int kPhotoSize = 170;  // pixels

// The square that the model sees of a sample; an error for a bad file.
absl::StatusOr<Image> ReadPhoto(const DataConfig& data, const SampleTransform& transform,
                                const ImageSource& source, int64_t i) {
  std::vector<uint8_t> bytes;
  RETURN_IF_ERROR(source.ReadBytes(i, &bytes));
  ASSIGN_OR_RETURN(
      const DecodedImage decoded,
      source.Decode(bytes, {.exif_rotate = data.exif_rotate, .max_pixels = data.max_pixels}));
  RandomStream unused(0, Purpose::kAugment);
  return transform.Apply(decoded.pixels.view(), unused);
}

std::vector<ReportSample::Guess> Guesses(const Tensor& logits,
                                         const std::vector<std::string>& names) {
  std::vector<ReportSample::Guess> guesses;
  const ops::TopKResult top = ops::TopK(ops::Softmax(logits), std::min(kGuesses, logits.dim(1)));
  for (int64_t i = 0; i < top.values.numel(); ++i) {
    const auto c = static_cast<size_t>(top.indices.data<int32_t>()[i]);
    guesses.push_back(
        {c < names.size() ? names[c] : absl::StrCat(c), 100 * top.values.data<float>()[i]});
  }
  return guesses;
}

}  // namespace

absl::StatusOr<std::vector<ReportSample>> ReportSamples(const ImageModel& model,
                                                        DType compute_dtype, const DataConfig& data,
                                                        const ImageSource& source, Device device) {
  ASSIGN_OR_RETURN(const SampleTransform transform,
                   SampleTransform::Create(data, /*training=*/false));
  ForwardContext context;
  context.compute_dtype = compute_dtype;
  std::vector<ReportSample> samples;
  const int64_t count = std::min(kSamples, source.num_samples()), size = transform.image_size();
  for (int64_t n = 0; n < count; ++n) {
    const int64_t i = n * source.num_samples() / count;
    const absl::StatusOr<Image> photo = ReadPhoto(data, transform, source, i);
    if (!photo.ok()) continue;
    const Tensor image = Tensor::Empty({1, size, size, 3}, DType::kF32);
    RandomStream unused(0, Purpose::kAugment);
    transform.Finish(*photo, unused, image.data<float>());
    ReportSample sample = {
        source.name(i), source.class_names()[source.label(i)],
        EncodePicture(ToBgrSquare(*photo, kPhotoSize), ".jpg"),
        Guesses(model.Forward(image.To(device), context).To(Device::kCpu), source.class_names()),
        ""};
    if (n < kWithAttention && device == Device::kCpu) {
      const std::vector<NamedMap> maps = AttentionMaps(model, image, compute_dtype);
      if (!maps.empty()) sample.attention_jpeg = AttentionPicture(*photo, maps, ".jpg");
    }
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace tessera::train
