// Named tensors that a model's weights can be taken from, whatever kind of file they are in.
#ifndef TESSERA_TRAIN_WEIGHT_SOURCE_H_
#define TESSERA_TRAIN_WEIGHT_SOURCE_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/file_system.h"
#include "models/weight_names.h"
#include "tensor/file_dtype.h"
#include "tensor/tensor.h"

namespace tessera::train {

class WeightSource {
 public:
  struct Entry {
    std::string name;
    FileDType dtype;
    Shape shape;
    // Fills a tensor of this shape: f32, rounded, for floating-point types, i64 for I64.
    std::function<absl::Status(const Tensor& dst)> read;
  };

  // `path` is a safetensors file, a file of torch.save or a checkpoint of a run, whose averaged
  // weights are taken with `ema`. Names are changed by `rules`; tensors that these leave out are
  // not there.
  static absl::StatusOr<WeightSource> Open(FileSystem& fs, const std::string& path, bool ema,
                                           absl::Span<const NameRule> rules);

  const std::string& path() const { return path_; }
  const std::vector<Entry>& entries() const { return entries_; }
  // The entry of this name, or null.
  const Entry* Find(absl::string_view name) const;

 private:
  absl::Status AddSafetensors(FileSystem& fs);
  absl::Status AddTorch(FileSystem& fs);
  absl::Status AddCheckpoint(FileSystem& fs, bool ema);
  absl::Status Rename(absl::Span<const NameRule> rules);

  std::string path_;
  std::vector<Entry> entries_;
  absl::flat_hash_map<std::string, size_t> places_;
};

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_WEIGHT_SOURCE_H_
