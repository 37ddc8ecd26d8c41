// Makes the rows of batches: loads samples, replaces bad ones, mixes pairs and writes targets.
#ifndef TESSERA_DATA_BATCH_BUILDER_H_
#define TESSERA_DATA_BATCH_BUILDER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "data/config.h"
#include "data/loader.h"
#include "data/sample_loader.h"
#include "data/sampler.h"
#include "data/source.h"
#include "data/transforms/mix.h"

namespace tessera::internal {

struct BadSample {
  int64_t index = 0;  // in the source
  absl::Status status;
};

// What happened while a row was made.
struct RowReport {
  absl::Status fatal;
  std::vector<BadSample> bad;
  SampleLoader::Cost cost;
};

// A batch in the making.
struct PendingBatch {
  Batch batch;
  std::shared_ptr<const EpochOrder> order;
  std::vector<MixDraw> mix;  // per row; empty: no mixing
  std::vector<RowReport> rows;
};

// Immutable, so that threads share it. All that a batch holds follows from the configuration, the
// seed, its epoch and its number.
class BatchBuilder {
 public:
  // `source` must outlive the builder; options.num_classes is set.
  BatchBuilder(const DataConfig& config, const ImageSource& source, const LoaderOptions& options,
               std::unique_ptr<SampleLoader> samples, int64_t batches_per_epoch);

  std::shared_ptr<const EpochOrder> MakeOrder(int64_t epoch) const;
  // Gives `pending` its tensors and random draws.
  void Begin(int64_t epoch, int64_t index, std::shared_ptr<const EpochOrder> order,
             PendingBatch* pending) const;
  // A task makes rows i and B - 1 - i, which are mixed with each other. Tasks of a batch may run at
  // the same time.
  int64_t num_tasks() const { return (options_.batch_size + 1) / 2; }
  void RunTask(PendingBatch& pending, int64_t task) const;

 private:
  void FillRow(PendingBatch& pending, int64_t row) const;
  void FillTrainingRow(PendingBatch& pending, int64_t row, int64_t position) const;
  bool TryFill(PendingBatch& pending, int64_t row, const SampleRef& ref) const;
  absl::StatusOr<SampleLoader::Cost> LoadSample(int64_t index, RandomStream& random,
                                                float* out) const;
  void ClearRow(PendingBatch& pending, int64_t row) const;
  void MixRows(PendingBatch& pending, int64_t a, int64_t b) const;
  void WriteTarget(PendingBatch& pending, int64_t row, int64_t partner) const;
  int64_t RowSize() const { return samples_->image_size() * samples_->image_size() * 3; }
  float* Row(const PendingBatch& pending, int64_t row) const {
    return pending.batch.images.data<float>() + row * RowSize();
  }

  const DataConfig config_;
  const ImageSource& source_;
  const LoaderOptions options_;
  const MixOptions mix_;
  const std::unique_ptr<SampleLoader> samples_;
  const int64_t batches_per_epoch_;
};

MixOptions MixOptionsOf(const DataConfig& config);

}  // namespace tessera::internal

#endif  // TESSERA_DATA_BATCH_BUILDER_H_
