// Batches of transformed pictures, loaded ahead by worker threads.
//
// What a batch holds depends on the configuration, seed, epoch and batch number alone: any number
// of workers gives the same bytes, and a loader that starts at (epoch, batch) continues exactly
// where an uninterrupted one would be.
//
//   ASSIGN_OR_RETURN(auto loader, Loader::Create(config, *source, {.training = true, ...}));
//   while (true) {
//     ASSIGN_OR_RETURN(const std::optional<Batch> batch, loader->Next());
//     if (!batch) break;
//     Step(batch->images, batch->targets);
//   }
#ifndef TESSERA_DATA_LOADER_H_
#define TESSERA_DATA_LOADER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/config.h"
#include "data/decode.h"
#include "data/source.h"
#include "tensor/tensor.h"

namespace tessera {

// The tensors' memory is used again for a later batch once no handle to it is left.
struct Batch {
  Tensor images;   // f32 [B, S, S, 3]: red, green, blue; normalised, erased and mixed
  Tensor labels;   // i64 [B]: the class before mixing; -1 where there is no sample
  Tensor targets;  // f32 [B, K], training only: smoothed and mixed, each row sums to 1
  Tensor samples;  // i64 [B]: index in the source; -1 where there is no sample
  int64_t epoch = 0;
  int64_t index = 0;      // of the batch in its epoch, from 0
  int64_t num_valid = 0;  // rows [0, num_valid) are samples; fewer than B at an evaluation's end
};

struct LoaderOptions {
  // Training: shuffled, augmented, mixed; the last incomplete batch of an epoch is left out.
  // Evaluation: in order, every sample exactly once over all ranks; all ranks have equally many
  // batches, the last of them filled up with rows that hold no sample.
  bool training = false;
  int64_t batch_size = 1;  // of this rank; even where batches are mixed
  uint64_t seed = 0;
  int64_t rank = 0;
  int64_t world = 1;
  int64_t start_epoch = 0;  // the first batch that Next gives
  int64_t start_batch = 0;
  int64_t epochs = 1;       // Next ends after epoch number epochs - 1
  int64_t num_classes = 0;  // K; 0 takes the source's
  // Asked while Next waits for the workers, some ten times a second: true makes it return
  // Cancelled, however long a file takes to be read. May be null.
  std::function<bool()> stop;
};

// Pictures that could not be used, counted as their batches are handed out, and their cost.
struct LoaderStats {
  std::array<int64_t, kNumBadFileKinds> bad = {};  // by BadFile
  int64_t damaged = 0;                             // decoded whole, but the codec complained
  std::vector<std::string> first_bad;              // "name: kind: reason", at most 20
  int64_t samples = 0;
  int64_t bytes_read = 0;
  double wait_seconds = 0;  // that Next waited for the workers

  int64_t num_bad() const;
};

class Loader {
 public:
  // `source` must outlive the loader. ConfigError for settings that do not go together, DataError
  // if an epoch would have no batch.
  //
  // A bad file in training is replaced by the next good sample of the rank's order; Next fails if
  // more than 10 and more than 0.1 % of an epoch's samples are bad. In evaluation Next fails at
  // the first, unless config.skip_bad leaves it out.
  static absl::StatusOr<std::unique_ptr<Loader>> Create(const DataConfig& config,
                                                        const ImageSource& source,
                                                        const LoaderOptions& options);
  virtual ~Loader() = default;  // stops and joins the workers, at any time

  // The next batch, or none after the last epoch. After an error, other than Cancelled, every call
  // returns it again.
  virtual absl::StatusOr<std::optional<Batch>> Next() = 0;

  virtual int64_t batches_per_epoch() const = 0;
  virtual int64_t samples_per_epoch() const = 0;  // of all ranks that batches hold
  virtual const LoaderStats& stats() const = 0;   // since the loader was created
};

}  // namespace tessera

#endif  // TESSERA_DATA_LOADER_H_
