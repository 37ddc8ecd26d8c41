#include "data/sample_loader.h"

#include <algorithm>
#include <utility>

#include "core/status.h"

namespace tessera::internal {
namespace {

constexpr int64_t kProbes = 8;

}  // namespace

DecodedCache::~DecodedCache() {
  for (const auto& image : images_) delete image.load();
}

const Image* DecodedCache::Add(int64_t i, Image* image) {
  const int64_t bytes = image->bytes() + kImagePadding;
  if (bytes_left_.fetch_sub(bytes) < bytes) {
    bytes_left_.fetch_add(bytes);
    return nullptr;
  }
  auto kept = std::make_unique<const Image>(std::move(*image));
  const Image* other = nullptr;
  if (images_[i].compare_exchange_strong(other, kept.get(), std::memory_order_acq_rel)) {
    return kept.release();
  }
  bytes_left_.fetch_add(bytes);  // another thread decoded the same sample at the same time
  return other;
}

absl::StatusOr<std::unique_ptr<SampleLoader>> SampleLoader::Create(const DataConfig& config,
                                                                   const ImageSource& source,
                                                                   bool training, int64_t epochs) {
  ASSIGN_OR_RETURN(SampleTransform transform, SampleTransform::Create(config, training));
  std::unique_ptr<SampleLoader> loader(new SampleLoader(source, std::move(transform)));
  loader->decode_.exif_rotate = config.exif_rotate;
  loader->decode_.max_pixels = config.max_pixels;
  const int64_t max_bytes = config.cache_mb << 20;
  if (epochs > 1 && loader->FitsInMemory(max_bytes)) {
    loader->cache_ = std::make_unique<DecodedCache>(source.num_samples(), max_bytes);
  }
  return loader;
}

// Judges by a few samples: what a picture takes decoded varies little within most sets, and the
// cache stops at its limit in any case.
bool SampleLoader::FitsInMemory(int64_t max_bytes) const {
  if (max_bytes == 0) return false;
  const int64_t n = source_.num_samples();
  int64_t decoded = 0;
  int64_t total = 0;
  std::vector<uint8_t> bytes;
  for (int64_t k = 0; k < std::min(n, kProbes); ++k) {
    const int64_t i = k * n / kProbes;
    if (!source_.ReadBytes(i, &bytes).ok()) continue;
    const absl::StatusOr<DecodedImage> image = source_.Decode(bytes, decode_);
    if (!image.ok()) continue;
    total += image->pixels.bytes() + kImagePadding;
    ++decoded;
  }
  return decoded > 0 && total / decoded <= max_bytes / n;
}

absl::StatusOr<SampleLoader::Cost> SampleLoader::Load(int64_t i, RandomStream& random,
                                                      float* out) const {
  Cost cost;
  const Image* cached = cache_ == nullptr ? nullptr : cache_->Find(i);
  DecodedImage decoded;
  ImageView region;
  bool has_region = false;
  Rect wanted;
  if (cached == nullptr) {
    thread_local std::vector<uint8_t> bytes;
    RETURN_IF_ERROR(source_.ReadBytes(i, &bytes));
    DecodeOptions options = decode_;
    if (cache_ == nullptr) {
      options.region = [&](int64_t height, int64_t width) {
        has_region = true;
        return wanted = transform_.ChooseRegion(height, width, random);
      };
    }
    ASSIGN_OR_RETURN(decoded, source_.Decode(bytes, options));
    cost = {static_cast<int64_t>(bytes.size()), decoded.damaged};
    if (cache_ != nullptr) cached = cache_->Add(i, &decoded.pixels);
  }
  const ImageView pixels = cached != nullptr ? cached->view() : decoded.pixels.view();
  if (!has_region) {
    wanted = transform_.ChooseRegion(pixels.height, pixels.width, random);
  } else {
    wanted.top -= decoded.covers.top;
    wanted.left -= decoded.covers.left;
  }
  const Image image = transform_.Apply(pixels.Crop(wanted), random);
  transform_.Finish(image, random, out);
  return cost;
}

}  // namespace tessera::internal
