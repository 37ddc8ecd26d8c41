// Reading the weights in files that PyTorch's torch.save wrote (since 1.6: a ZIP archive of a
// pickle and of the tensors' bytes). No Python is needed, and nothing in the file is executed: see
// pickle.h.
//
// Files come from outside: whatever they hold, the answer is an error and never a crash. Errors are
// DataErrors such as
//   model.pth: data.pkl: byte 23: 'posix.system' is not allowed
#ifndef TESSERA_TENSOR_TORCH_TORCH_FILE_H_
#define TESSERA_TENSOR_TORCH_TORCH_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/file_system.h"
#include "tensor/file_dtype.h"
#include "tensor/tensor.h"

namespace tessera {

// Whether torch.save writes files called like this: .pth, .pt, .bin, .ckpt, .tar.
bool HasTorchSuffix(absl::string_view path);

class TorchFile {
 public:
  // A view of a storage, which tensors can share.
  struct Entry {
    std::string name;
    FileDType dtype;
    Shape shape;
    int64_t offset = 0;            // of its first element in the file, in bytes
    std::vector<int64_t> strides;  // in elements; not negative
  };

  // Reads names and places of the tensors of a state_dict. That stands alone, or in a dict under
  // state_dict_ema, model_ema, state_dict, model or module, of which the first one found is taken:
  // averaged weights come before others. Its values that are no tensors are left out, and so is
  // "module." where all names begin with it.
  static absl::StatusOr<TorchFile> Open(FileSystem& fs, const std::string& path);

  const std::string& path() const { return path_; }
  const std::vector<Entry>& entries() const { return entries_; }

  // Fills `dst`, of the entry's shape: f32, rounded, for floating-point types, i64 for I64. The
  // entry is one of entries().
  absl::Status Read(const Entry& entry, const Tensor& dst) const;

 private:
  template <typename T>
  absl::Status ReadView(const Entry& entry, absl::Span<T> dst) const;

  std::string path_;
  std::unique_ptr<ReadableFile> file_;
  std::vector<Entry> entries_;
};

}  // namespace tessera

#endif  // TESSERA_TENSOR_TORCH_TORCH_FILE_H_
