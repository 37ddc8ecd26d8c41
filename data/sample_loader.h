// One sample from the source to the normalised floats of its row in a batch.
#ifndef TESSERA_DATA_SAMPLE_LOADER_H_
#define TESSERA_DATA_SAMPLE_LOADER_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "core/random.h"
#include "data/config.h"
#include "data/decode.h"
#include "data/source.h"
#include "data/transforms/sample_transform.h"

namespace tessera::internal {

// Decoded pictures that are kept in memory. Thread-safe.
class DecodedCache {
 public:
  DecodedCache(int64_t num_samples, int64_t max_bytes)
      : images_(num_samples), bytes_left_(max_bytes) {}
  DecodedCache(const DecodedCache&) = delete;
  ~DecodedCache();

  // Null if the sample is not there.
  const Image* Find(int64_t i) const { return images_[i].load(std::memory_order_acquire); }
  // Keeps the picture if there is room, and gives what is kept; null if there was no room.
  const Image* Add(int64_t i, Image* image);

 private:
  std::vector<std::atomic<const Image*>> images_;
  std::atomic<int64_t> bytes_left_;
};

class SampleLoader {
 public:
  // Pictures are cached if config.cache_mb has room for about all of them and `epochs` > 1.
  static absl::StatusOr<std::unique_ptr<SampleLoader>> Create(const DataConfig& config,
                                                              const ImageSource& source,
                                                              bool training, int64_t epochs);

  int64_t image_size() const { return transform_.image_size(); }

  struct Cost {
    int64_t bytes_read = 0;
    bool damaged = false;  // the codec complained
  };
  // Writes [image_size, image_size, 3]. Errors are BadFileErrors. Thread-safe.
  absl::StatusOr<Cost> Load(int64_t i, RandomStream& random, float* out) const;

 private:
  SampleLoader(const ImageSource& source, SampleTransform transform)
      : source_(source), transform_(std::move(transform)) {}
  bool FitsInMemory(int64_t max_bytes) const;

  const ImageSource& source_;
  SampleTransform transform_;
  DecodeOptions decode_;
  std::unique_ptr<DecodedCache> cache_;  // null for none
};

}  // namespace tessera::internal

#endif  // TESSERA_DATA_SAMPLE_LOADER_H_
