// A labelled set of pictures on disk: one split of a folder, of tar shards or of IDX files.
//
// A source knows its samples after opening (number, labels, names) and reads one at a time, from
// any thread, with one open and read per file and no search.
#ifndef TESSERA_DATA_SOURCE_H_
#define TESSERA_DATA_SOURCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "data/config.h"
#include "data/decode.h"

namespace tessera {

class ImageSource {
 public:
  virtual ~ImageSource() = default;

  virtual int64_t num_samples() const = 0;
  virtual int32_t label(int64_t i) const = 0;     // 0..num_classes() - 1
  virtual std::string name(int64_t i) const = 0;  // for people: path, or shard and member
  virtual std::string description() const = 0;    // "folder /data/imagenet/val"
  // As many as there are classes; an unnamed class is called by its number.
  const std::vector<std::string>& class_names() const { return class_names_; }
  int64_t num_classes() const { return static_cast<int64_t>(class_names_.size()); }

  // The sample as it is stored. Errors are BadFileErrors without the sample's name. Thread-safe.
  virtual absl::Status ReadBytes(int64_t i, std::vector<uint8_t>* bytes) const = 0;
  // Turns what ReadBytes gave into a picture; see DecodeImage.
  virtual absl::StatusOr<DecodedImage> Decode(absl::Span<const uint8_t> bytes,
                                              const DecodeOptions& options) const {
    return DecodeImage(bytes, options);
  }

 protected:
  std::vector<std::string> class_names_;
};

enum class Split { kTrain, kVal };

// Opens config.train_split or config.val_split below config.root. Errors say what was looked for,
// what is there, and what a valid layout looks like.
absl::StatusOr<std::unique_ptr<ImageSource>> OpenSource(const DataConfig& config, Split split);

// Two splits whose classes are numbered by their own folders or labels need not agree: an error
// names the first class of `val` that `train` calls differently or does not have.
absl::Status CheckSameClasses(const ImageSource& train, const ImageSource& val);

}  // namespace tessera

#endif  // TESSERA_DATA_SOURCE_H_
