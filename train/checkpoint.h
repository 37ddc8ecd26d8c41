// Checkpoints: directories that hold everything a run needs to go on.
//
//   RUN/checkpoints/step_000001000/   newest few, see PruneCheckpoints
//   RUN/best/                         of the same form, replaced when the metric improves
//     state.json              TrainState and the names of the groups
//     config.yaml             the resolved configuration
//     model.safetensors       one file per group of tensors: model, optimizer, ema, ...
//     checksums               XXH64 of every file; `xxh64sum -c checksums` checks them, too
// A checkpoint appears complete or not at all, and one that is replaced stays until its successor
// is on disk. Whatever is damaged later is found by its checksum and named.
#ifndef TESSERA_TRAIN_CHECKPOINT_H_
#define TESSERA_TRAIN_CHECKPOINT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "core/file_system.h"
#include "tensor/safetensors.h"

namespace tessera::train {

// Where a run stands. The next step is batch `batch` of epoch `epoch`.
struct TrainState {
  std::string model;                      // registered name
  std::vector<std::string> class_names;   // of the data set, in the order of the classifier
  int64_t step = 0;                       // steps done, skipped ones included
  int64_t epoch = 0;                      // epochs completed
  int64_t batch = 0;                      // batches of the current epoch that are done
  int64_t updates = 0;                    // steps that made the weights what they are
  int64_t skipped_in_a_row = 0;           // steps since the last update, see train/bad_steps.h
  int64_t rolled_back_at = 0;             // step at which weights last went back; 0: never
  double mean_loss = 0;                   // running average over updates
  uint64_t seed = 0;                      // all randomness follows from it and the counters above
  std::map<std::string, double> metrics;  // those not finite come back as NaN
};

struct CheckpointContents {
  TrainState state;
  std::string config;  // resolved, YAML
  // By group name, which consists of letters and '_'.
  std::map<std::string, std::vector<NamedTensor>> groups;
};

std::string CheckpointPath(absl::string_view run_dir, int64_t step);
std::string BestPath(absl::string_view run_dir);

// Writes a checkpoint, making the directories above it and replacing one that is there.
absl::Status SaveCheckpoint(FileSystem& fs, const std::string& path,
                            const CheckpointContents& contents);

// A checkpoint whose files are there and have their checksums.
class Checkpoint {
 public:
  // NotFound if there is none, DataLoss with the names of all damaged or missing files.
  static absl::StatusOr<Checkpoint> Open(FileSystem& fs, const std::string& path);

  const std::string& path() const { return path_; }
  const TrainState& state() const { return state_; }
  const std::string& config() const { return config_; }
  // The tensors of a group, or null.
  const SafetensorsFile* group(absl::string_view name) const;
  // Fills `tensors` with those of the group: the names, shapes and dtypes must be the same on both
  // sides. f32 tensors of the CPU are read straight into their memory.
  absl::Status Read(absl::string_view group, absl::Span<const NamedTensor> tensors) const;

 private:
  std::string path_;
  TrainState state_;
  std::string config_;
  std::map<std::string, SafetensorsFile> groups_;
};

// Steps of the run's checkpoints, newest first, damaged ones included.
absl::StatusOr<std::vector<int64_t>> ListCheckpoints(FileSystem& fs, const std::string& run_dir);

// The newest checkpoint that is not damaged; those that are get a warning. NotFound if there is no
// checkpoint, DataLoss with the newest one's error if none is usable.
absl::StatusOr<Checkpoint> OpenLatestCheckpoint(FileSystem& fs, const std::string& run_dir);

// Removes all but the `keep_last` newest checkpoints, and what dead runs left half-written. Does
// not remove the newest undamaged one, however many damaged ones are newer. Leaves `best` alone.
absl::Status PruneCheckpoints(FileSystem& fs, const std::string& run_dir, int64_t keep_last);

}  // namespace tessera::train

#endif  // TESSERA_TRAIN_CHECKPOINT_H_
