// TensorBoard event files with scalars. A file is a row of records
//   uint64 size, uint32 masked CRC-32C of the size, bytes, uint32 masked CRC-32C of the bytes
// whose bytes are `Event` messages of TensorBoard's protocol buffers. Only five fields of them are
// used, which is why they are encoded here by hand.
#ifndef TESSERA_TRAIN_TENSORBOARD_H_
#define TESSERA_TRAIN_TENSORBOARD_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "core/file_system.h"

namespace tessera::train {

// A named number of a step, such as {"train/loss", 2.5}.
using Scalar = std::pair<std::string, double>;

class TensorBoardWriter {
 public:
  // Starts a file in `directory`, which exists. What earlier files there hold for `first_step` and
  // later steps is hidden by TensorBoard.
  static absl::StatusOr<TensorBoardWriter> Create(FileSystem& fs, const std::string& directory,
                                                  int64_t first_step, absl::Time now);

  absl::Status Write(int64_t step, absl::Time now, absl::Span<const Scalar> scalars);

 private:
  explicit TensorBoardWriter(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
  std::unique_ptr<WritableFile> file_;
};

// CRC-32C (Castagnoli polynomial, reflected), rotated and shifted as event files want it.
uint32_t MaskedCrc32c(absl::string_view data);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_TENSORBOARD_H_
