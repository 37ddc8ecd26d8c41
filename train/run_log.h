// The numbers of a run, step by step: RUN/metrics.jsonl, one JSON object per line
//   {"step":100,"time":1700000000.25,"train/loss":2.5,"train/lr":0.001}
// and TensorBoard event files in RUN/tensorboard. Values that are not finite are null in the first.
#ifndef TESSERA_TRAIN_RUN_LOG_H_
#define TESSERA_TRAIN_RUN_LOG_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "core/file_system.h"
#include "train/tensorboard.h"

namespace tessera::train {

class RunLog {
 public:
  // Continues the log of a run that stands at `step`, 0 for a new one. Lines of later steps, left
  // by a run that died after its last checkpoint, and lines cut off half-way are removed. Makes
  // `run_dir` if need be.
  static absl::StatusOr<RunLog> Open(FileSystem& fs, const std::string& run_dir, int64_t step);

  // Adds the scalars of a step; they are with the operating system when it returns.
  absl::Status Write(int64_t step, absl::Span<const Scalar> scalars);

 private:
  RunLog(std::unique_ptr<WritableFile> lines, TensorBoardWriter tensorboard)
      : lines_(std::move(lines)), tensorboard_(std::move(tensorboard)) {}

  std::unique_ptr<WritableFile> lines_;
  TensorBoardWriter tensorboard_;
};

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_RUN_LOG_H_
