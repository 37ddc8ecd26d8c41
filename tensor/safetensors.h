// Reading and writing safetensors: eight bytes with the size of a JSON header, the header (name ->
// dtype, shape, place), then the tensors' bytes, row-major and little-endian, without gaps.
// Format: https://github.com/huggingface/safetensors
//
// Files come from outside: whatever they hold, the answer is an error and never a crash. Errors are
// DataErrors such as
//   model.safetensors: tensor 'head.weight': 400 bytes at [0, 400), expected 800 for F32[20, 10]
#ifndef TESSERA_TENSOR_SAFETENSORS_H_
#define TESSERA_TENSOR_SAFETENSORS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/file_system.h"
#include "tensor/file_dtype.h"
#include "tensor/tensor.h"

namespace tessera {

class SafetensorsFile {
 public:
  struct Entry {
    std::string name;
    FileDType dtype;
    Shape shape;
    int64_t begin;  // bytes from the end of the header
    int64_t end;
  };

  // Reads and checks the header; the tensors stay on disk until they are asked for.
  static absl::StatusOr<SafetensorsFile> Open(FileSystem& fs, const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<Entry>& entries() const { return entries_; }  // in the order of their bytes
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // The tensor of this name, or null.
  const Entry* Find(absl::string_view name) const;

  // The tensor in its own dtype; where Tensor has none, in the narrowest one that keeps every
  // value: F16 as f32, I16 and I8 as i32, BOOL as u8. NotFound, with a suggestion, for a name that
  // is not there.
  absl::StatusOr<Tensor> Read(absl::string_view name) const;
  // Fills `dst` (as many elements as the tensor has, else a DataError) with a floating-point
  // tensor, rounded to f32.
  absl::Status ReadAsF32(absl::string_view name, absl::Span<float> dst) const;

 private:
  absl::StatusOr<const Entry*> FindOrError(absl::string_view name) const;

  std::string path_;
  std::unique_ptr<ReadableFile> file_;
  int64_t data_offset_ = 0;  // of the tensors' bytes in the file
  std::vector<Entry> entries_;
  absl::flat_hash_map<std::string, int64_t> index_;  // name -> place in entries_
  std::map<std::string, std::string> metadata_;
};

using NamedTensor = std::pair<std::string, Tensor>;

// Hands the bytes of a file with these tensors (on the CPU, names all different) to `append`, piece
// by piece; stops at its first error. Wider elements come first, which aligns every tensor; else
// the order is the given one.
absl::Status EncodeSafetensors(absl::Span<const NamedTensor> tensors,
                               const std::map<std::string, std::string>& metadata,
                               const std::function<absl::Status(absl::string_view)>& append);

// Writes such a file; it appears at `path` complete or not at all.
absl::Status WriteSafetensors(FileSystem& fs, const std::string& path,
                              absl::Span<const NamedTensor> tensors,
                              const std::map<std::string, std::string>& metadata = {});

}  // namespace tessera

#endif  // TESSERA_TENSOR_SAFETENSORS_H_
