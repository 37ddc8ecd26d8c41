#include "data/batch_builder.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "core/status.h"

namespace tessera::internal {
namespace {

constexpr int64_t kMaxBadInARow = 100;  // tried for one row of a training batch

}  // namespace

MixOptions MixOptionsOf(const DataConfig& config) {
  MixOptions options;
  options.mixup_alpha = config.mixup;
  options.cutmix_alpha = config.cutmix;
  options.probability = config.mixup_prob;
  options.switch_probability = config.mixup_switch_prob;
  options.mode = config.mixup_mode == "elem"   ? MixMode::kElement
                 : config.mixup_mode == "pair" ? MixMode::kPair
                                               : MixMode::kBatch;
  return options;
}

BatchBuilder::BatchBuilder(const DataConfig& config, const ImageSource& source,
                           const LoaderOptions& options, std::unique_ptr<SampleLoader> samples,
                           int64_t batches_per_epoch)
    : config_(config),
      source_(source),
      options_(options),
      mix_(MixOptionsOf(config)),
      samples_(std::move(samples)),
      batches_per_epoch_(batches_per_epoch) {}

std::shared_ptr<const EpochOrder> BatchBuilder::MakeOrder(int64_t epoch) const {
  const int64_t n = source_.num_samples();
  return std::make_shared<const EpochOrder>(
      options_.training ? EpochOrder::Training(EpochPermutation(n, options_.seed, epoch),
                                               config_.repeated_aug, options_.rank, options_.world)
                        : EpochOrder::Evaluation(n, options_.rank, options_.world));
}

void BatchBuilder::Begin(int64_t epoch, int64_t index, std::shared_ptr<const EpochOrder> order,
                         PendingBatch* pending) const {
  const int64_t size = samples_->image_size();
  const int64_t rows = options_.batch_size;
  Batch& batch = pending->batch;
  batch.images = Tensor::Empty({rows, size, size, 3}, DType::kF32);
  batch.labels = Tensor::Empty({rows}, DType::kI64);
  batch.samples = Tensor::Empty({rows}, DType::kI64);
  batch.epoch = epoch;
  batch.index = index;
  pending->order = std::move(order);
  pending->mix.clear();
  pending->rows.assign(rows, RowReport());
  if (!options_.training) return;
  batch.targets = Tensor::Empty({rows, options_.num_classes}, DType::kF32);
  const bool off = config_.mixup_off_epoch > 0 && epoch >= config_.mixup_off_epoch;
  if (!mix_.enabled() || off) return;
  RandomStream random(options_.seed, Purpose::kMix,
                      static_cast<uint64_t>(epoch * batches_per_epoch_ + index),
                      static_cast<uint64_t>(options_.rank));
  pending->mix = DrawMix(mix_, rows, size, size, random);
}

void BatchBuilder::RunTask(PendingBatch& pending, int64_t task) const {
  const int64_t a = task;
  const int64_t b = options_.batch_size - 1 - task;
  FillRow(pending, a);
  if (b != a) FillRow(pending, b);
  if (!options_.training || !pending.rows[a].fatal.ok() || !pending.rows[b].fatal.ok()) return;
  if (!pending.mix.empty()) MixRows(pending, a, b);
  WriteTarget(pending, a, b);
  if (b != a) WriteTarget(pending, b, a);
}

void BatchBuilder::FillRow(PendingBatch& pending, int64_t row) const {
  const int64_t position = pending.batch.index * options_.batch_size + row;
  if (options_.training) return FillTrainingRow(pending, row, position);
  if (position < pending.order->size()) {
    if (TryFill(pending, row, pending.order->at(position))) return;
    const BadSample& bad = pending.rows[row].bad.back();
    if (!config_.skip_bad) {
      pending.rows[row].fatal =
          Annotate(Annotate(bad.status, source_.name(bad.index)),
                   "evaluation needs every picture; data.skip_bad=true leaves bad ones out");
    }
  }
  ClearRow(pending, row);
}

// Takes the sample at this position of the epoch, or the first good one after it.
void BatchBuilder::FillTrainingRow(PendingBatch& pending, int64_t row, int64_t position) const {
  for (int64_t attempt = 0; attempt < kMaxBadInARow; ++attempt) {
    SampleRef ref = pending.order->at((position + attempt) % pending.order->size());
    // Where a sample stands in for another one, it is augmented differently than in its own row.
    ref.repeat += attempt << 16;
    if (TryFill(pending, row, ref)) return;
  }
  const BadSample& bad = pending.rows[row].bad.back();
  pending.rows[row].fatal =
      Annotate(bad.status, absl::StrCat(kMaxBadInARow, " bad pictures in a row, the last one ",
                                        source_.name(bad.index)));
}

bool BatchBuilder::TryFill(PendingBatch& pending, int64_t row, const SampleRef& ref) const {
  RandomStream random(options_.seed, Purpose::kAugment, static_cast<uint64_t>(pending.batch.epoch),
                      static_cast<uint64_t>(ref.index) | static_cast<uint64_t>(ref.repeat) << 32);
  const auto cost = LoadSample(ref.index, random, Row(pending, row));
  if (!cost.ok()) {
    pending.rows[row].bad.push_back({ref.index, cost.status()});
    return false;
  }
  pending.rows[row].cost = *cost;
  pending.batch.labels.data<int64_t>()[row] = source_.label(ref.index);
  pending.batch.samples.data<int64_t>()[row] = ref.index;
  return true;
}

// Libraries may throw on hostile files, if only for lack of memory.
absl::StatusOr<SampleLoader::Cost> BatchBuilder::LoadSample(int64_t index, RandomStream& random,
                                                            float* out) const {
  try {
    return samples_->Load(index, random, out);
  } catch (const std::exception& e) {
    return BadFileError(BadFile::kCorrupt, e.what());
  }
}

void BatchBuilder::ClearRow(PendingBatch& pending, int64_t row) const {
  std::fill_n(Row(pending, row), RowSize(), 0.0f);
  pending.batch.labels.data<int64_t>()[row] = -1;
  pending.batch.samples.data<int64_t>()[row] = -1;
}

void BatchBuilder::MixRows(PendingBatch& pending, int64_t a, int64_t b) const {
  const int64_t size = samples_->image_size();
  float* image_a = Row(pending, a);
  float* image_b = Row(pending, b);
  thread_local std::vector<float> old_a;
  old_a.assign(image_a, image_a + RowSize());
  MixInto(pending.mix[a], size, size, image_b, image_a);
  MixInto(pending.mix[b], size, size, old_a.data(), image_b);
}

void BatchBuilder::WriteTarget(PendingBatch& pending, int64_t row, int64_t partner) const {
  const int64_t* labels = pending.batch.labels.data<int64_t>();
  SoftTarget(labels[row], labels[partner], pending.mix.empty() ? 1.0 : pending.mix[row].lambda,
             options_.num_classes, config_.label_smoothing,
             pending.batch.targets.data<float>() + row * options_.num_classes);
}

}  // namespace tessera::internal
