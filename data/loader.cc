#include "data/loader.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <numeric>
#include <opencv2/core.hpp>
#include <thread>
#include <utility>

#include "core/check.h"
#include "core/status.h"
#include "data/sample_loader.h"
#include "data/sampler.h"
#include "data/transforms/mix.h"

namespace tessera {
namespace {

using internal::SampleLoader;

constexpr int64_t kMaxWorkers = 32;     // that -1 may choose
constexpr int64_t kMaxBadInARow = 100;  // tried for one row of a training batch
constexpr int64_t kMaxBadListed = 20;
constexpr int64_t kBadAlwaysAllowed = 10;   // of an epoch
constexpr double kBadShareAllowed = 0.001;  // of an epoch's samples

struct BadSample {
  int64_t index = 0;
  absl::Status status;
};

// What happened while a row was made.
struct RowReport {
  absl::Status fatal;
  std::vector<BadSample> bad;
  SampleLoader::Cost cost;
};

// A batch in the making.
struct Slot {
  Batch batch;
  std::shared_ptr<const EpochOrder> order;
  std::vector<MixDraw> mix;  // per row; empty: no mixing
  std::vector<RowReport> rows;
  int64_t next_task = 0;
  int64_t tasks_left = 0;
};

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

int64_t NumWorkers(int64_t configured) {
  if (configured >= 0) return configured;
  const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
  return std::clamp<int64_t>(cores - 1, 1, kMaxWorkers);
}

class LoaderImpl : public Loader {
 public:
  LoaderImpl(const DataConfig& config, const ImageSource& source, const LoaderOptions& options,
             std::unique_ptr<SampleLoader> samples, int64_t batches)
      : config_(config),
        source_(source),
        options_(options),
        mix_(MixOptionsOf(config)),
        samples_(std::move(samples)),
        batches_per_epoch_(batches),
        next_epoch_(options.start_epoch),
        next_batch_(options.start_batch) {
    if (options_.num_classes == 0) options_.num_classes = source.num_classes();
    const int64_t workers = NumWorkers(config.workers);
    slots_.resize(workers == 0 ? 1 : config.prefetch);
    OpenBatches();
    for (int64_t i = 0; i < workers; ++i) {
      workers_.emplace_back([this] { Work(); });
    }
  }

  ~LoaderImpl() override {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    task_ready_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  absl::StatusOr<std::optional<Batch>> Next() override {
    if (!error_.ok()) return error_;
    if (delivered_ == opened_) return std::nullopt;
    Slot& slot = slots_[delivered_ % NumSlots()];
    if (workers_.empty()) {
      while (slot.next_task < NumTasks()) RunTask(slot, slot.next_task++);
    } else {
      WaitFor(slot);
    }
    error_ = Account(slot);
    if (!error_.ok()) return error_;
    Batch batch = std::exchange(slot.batch, {});
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++delivered_;
    }
    OpenBatches();
    return batch;
  }

  int64_t batches_per_epoch() const override { return batches_per_epoch_; }
  int64_t samples_per_epoch() const override {
    if (!options_.training) return source_.num_samples();
    return batches_per_epoch_ * options_.batch_size * options_.world;
  }
  const LoaderStats& stats() const override { return stats_; }

 private:
  int64_t NumSlots() const { return static_cast<int64_t>(slots_.size()); }
  // A task makes rows i and B - 1 - i, which are mixed with each other.
  int64_t NumTasks() const { return (options_.batch_size + 1) / 2; }

  // Prepares batches for the workers, as far ahead as there are slots.
  void OpenBatches() {
    while (opened_ - delivered_ < NumSlots() && next_epoch_ < options_.epochs) {
      Open(&slots_[opened_ % NumSlots()]);
      if (++next_batch_ == batches_per_epoch_) {
        next_batch_ = 0;
        ++next_epoch_;
        order_ = nullptr;
      }
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        ++opened_;
      }
      task_ready_.notify_all();
    }
  }

  void Open(Slot* slot) {
    if (order_ == nullptr) order_ = MakeOrder(next_epoch_);
    const int64_t size = samples_->image_size();
    const int64_t rows = options_.batch_size;
    Batch& batch = slot->batch;
    batch.images = Tensor::Empty({rows, size, size, 3}, DType::kF32);
    batch.labels = Tensor::Empty({rows}, DType::kI64);
    batch.samples = Tensor::Empty({rows}, DType::kI64);
    batch.epoch = next_epoch_;
    batch.index = next_batch_;
    slot->order = order_;
    slot->mix.clear();
    slot->rows.assign(rows, RowReport());
    slot->next_task = 0;
    slot->tasks_left = NumTasks();
    if (!options_.training) return;
    batch.targets = Tensor::Empty({rows, options_.num_classes}, DType::kF32);
    const bool off = config_.mixup_off_epoch > 0 && batch.epoch >= config_.mixup_off_epoch;
    if (mix_.enabled() && !off) {
      RandomStream random(options_.seed, Purpose::kMix,
                          static_cast<uint64_t>(batch.epoch * batches_per_epoch_ + batch.index),
                          static_cast<uint64_t>(options_.rank));
      slot->mix = DrawMix(mix_, rows, size, size, random);
    }
  }

  std::shared_ptr<const EpochOrder> MakeOrder(int64_t epoch) const {
    const int64_t n = source_.num_samples();
    return std::make_shared<const EpochOrder>(
        options_.training
            ? EpochOrder::Training(EpochPermutation(n, options_.seed, epoch), config_.repeated_aug,
                                   options_.rank, options_.world)
            : EpochOrder::Evaluation(n, options_.rank, options_.world));
  }

  void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      task_ready_.wait(lock, [this] { return stop_ || working_ < opened_; });
      if (stop_) return;
      Slot& slot = slots_[working_ % NumSlots()];
      const int64_t task = slot.next_task++;
      if (slot.next_task == NumTasks()) ++working_;
      lock.unlock();
      RunTask(slot, task);
      lock.lock();
      if (--slot.tasks_left == 0) batch_ready_.notify_all();
    }
  }

  void WaitFor(const Slot& slot) {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock<std::mutex> lock(mutex_);
    batch_ready_.wait(lock, [&slot] { return slot.tasks_left == 0; });
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
    stats_.wait_seconds += waited.count();
  }

  // Rows `task` and its partner, and how they mix.
  void RunTask(Slot& slot, int64_t task) const {
    const int64_t a = task;
    const int64_t b = options_.batch_size - 1 - task;
    FillRow(slot, a);
    if (b != a) FillRow(slot, b);
    if (!slot.rows[a].fatal.ok() || !slot.rows[b].fatal.ok()) return;
    if (!slot.mix.empty()) MixRows(slot, a, b);
    if (!options_.training) return;
    WriteTarget(slot, a, b);
    if (b != a) WriteTarget(slot, b, a);
  }

  void MixRows(Slot& slot, int64_t a, int64_t b) const {
    const int64_t size = samples_->image_size();
    float* image_a = Row(slot, a);
    float* image_b = Row(slot, b);
    thread_local std::vector<float> old_a;
    old_a.assign(image_a, image_a + size * size * 3);
    MixInto(slot.mix[a], size, size, image_b, image_a);
    MixInto(slot.mix[b], size, size, old_a.data(), image_b);
  }

  void WriteTarget(Slot& slot, int64_t row, int64_t partner) const {
    const int64_t* labels = slot.batch.labels.data<int64_t>();
    SoftTarget(labels[row], labels[partner], slot.mix.empty() ? 1.0 : slot.mix[row].lambda,
               options_.num_classes, config_.label_smoothing,
               slot.batch.targets.data<float>() + row * options_.num_classes);
  }

  float* Row(const Slot& slot, int64_t row) const {
    const int64_t size = samples_->image_size();
    return slot.batch.images.data<float>() + row * size * size * 3;
  }

  void FillRow(Slot& slot, int64_t row) const {
    const int64_t at = slot.batch.index * options_.batch_size + row;
    if (options_.training) {
      FillTrainingRow(slot, row, at);
    } else if (at >= slot.order->size()) {
      ClearRow(slot, row);
    } else if (!TryFill(slot, row, slot.order->at(at))) {
      const BadSample& bad = slot.rows[row].bad.back();
      if (!config_.skip_bad) {
        slot.rows[row].fatal =
            Annotate(Annotate(bad.status, source_.name(bad.index)),
                     "evaluation needs every picture; data.skip_bad=true leaves bad ones out");
      }
      ClearRow(slot, row);
    }
  }

  // The sample at position `at` of the epoch, or the first good one after it.
  void FillTrainingRow(Slot& slot, int64_t row, int64_t at) const {
    for (int64_t attempt = 0; attempt < kMaxBadInARow; ++attempt) {
      SampleRef ref = slot.order->at((at + attempt) % slot.order->size());
      // Where a sample stands in for another one, it is augmented differently than in its own row.
      ref.repeat += attempt << 16;
      if (TryFill(slot, row, ref)) return;
    }
    const BadSample& bad = slot.rows[row].bad.back();
    slot.rows[row].fatal =
        Annotate(bad.status, absl::StrCat(kMaxBadInARow, " bad pictures in a row, the last one ",
                                          source_.name(bad.index)));
  }

  bool TryFill(Slot& slot, int64_t row, const SampleRef& ref) const {
    RandomStream random(options_.seed, Purpose::kAugment, static_cast<uint64_t>(slot.batch.epoch),
                        static_cast<uint64_t>(ref.index) | static_cast<uint64_t>(ref.repeat) << 32);
    const auto cost = LoadSample(ref.index, random, Row(slot, row));
    if (!cost.ok()) {
      slot.rows[row].bad.push_back({ref.index, cost.status()});
      return false;
    }
    slot.rows[row].cost = *cost;
    slot.batch.labels.data<int64_t>()[row] = source_.label(ref.index);
    slot.batch.samples.data<int64_t>()[row] = ref.index;
    return true;
  }

  // Libraries may throw on hostile files, if only for lack of memory.
  absl::StatusOr<SampleLoader::Cost> LoadSample(int64_t index, RandomStream& random,
                                                float* out) const {
    try {
      return samples_->Load(index, random, out);
    } catch (const std::exception& e) {
      return BadFileError(BadFile::kCorrupt, e.what());
    }
  }

  void ClearRow(Slot& slot, int64_t row) const {
    const int64_t size = samples_->image_size();
    std::fill_n(Row(slot, row), size * size * 3, 0.0f);
    slot.batch.labels.data<int64_t>()[row] = -1;
    slot.batch.samples.data<int64_t>()[row] = -1;
  }

  // Counts what happened in a finished batch, in the order of its rows, so that the counts and
  // when the loader gives up do not depend on the workers either.
  absl::Status Account(Slot& slot) {
    if (slot.batch.epoch != accounted_epoch_) {
      accounted_epoch_ = slot.batch.epoch;
      bad_in_epoch_ = 0;
    }
    for (const RowReport& row : slot.rows) {
      for (const BadSample& bad : row.bad) RETURN_IF_ERROR(AccountBad(bad));
      RETURN_IF_ERROR(row.fatal);
      stats_.bytes_read += row.cost.bytes_read;
      stats_.damaged += row.cost.damaged;
    }
    slot.batch.num_valid = MoveSamplesUp(&slot.batch);
    stats_.samples += slot.batch.num_valid;
    return absl::OkStatus();
  }

  absl::Status AccountBad(const BadSample& bad) {
    ++stats_.bad[static_cast<int>(BadFileKind(bad.status))];
    ++bad_in_epoch_;
    const std::string what = absl::StrCat(source_.name(bad.index), ": ", bad.status.message());
    if (static_cast<int64_t>(stats_.first_bad.size()) < kMaxBadListed) {
      LOG(WARNING) << "bad picture left out: " << what;
      stats_.first_bad.push_back(what);
    }
    const int64_t epoch_samples = batches_per_epoch_ * options_.batch_size;
    if (!options_.training || bad_in_epoch_ <= kBadAlwaysAllowed ||
        static_cast<double>(bad_in_epoch_) <=
            kBadShareAllowed * static_cast<double>(epoch_samples)) {
      return absl::OkStatus();
    }
    return DataError(absl::StrCat(
        source_.description(), ": ", bad_in_epoch_, " bad pictures in epoch ", accounted_epoch_,
        " of ", epoch_samples, " samples, at most ", kBadAlwaysAllowed,
        " or 0.1 % are allowed; the last one is ", what, "; 'tessera data check' lists all"));
  }

  // Rows without a sample go to the end; returns how many have one.
  static int64_t MoveSamplesUp(Batch* batch) {
    int64_t* labels = batch->labels.data<int64_t>();
    int64_t* samples = batch->samples.data<int64_t>();
    float* images = batch->images.data<float>();
    const int64_t rows = batch->labels.numel();
    const int64_t row_size = batch->images.numel() / rows;
    int64_t valid = 0;
    for (int64_t row = 0; row < rows; ++row) {
      if (samples[row] < 0) continue;
      if (row != valid) {
        std::copy_n(images + row * row_size, row_size, images + valid * row_size);
        std::fill_n(images + row * row_size, row_size, 0.0f);
        labels[valid] = std::exchange(labels[row], -1);
        samples[valid] = std::exchange(samples[row], -1);
      }
      ++valid;
    }
    return valid;
  }

  const DataConfig config_;
  const ImageSource& source_;
  LoaderOptions options_;
  const MixOptions mix_;
  const std::unique_ptr<SampleLoader> samples_;
  const int64_t batches_per_epoch_;

  // Of the calling thread.
  int64_t next_epoch_;  // the batch to open next
  int64_t next_batch_;
  std::shared_ptr<const EpochOrder> order_;  // of next_epoch_; null until it is needed
  LoaderStats stats_;
  int64_t accounted_epoch_ = -1;
  int64_t bad_in_epoch_ = 0;
  absl::Status error_;

  // Batches are numbered from the loader's first; batch g is made in slot g mod NumSlots(). The
  // calling thread alone changes opened_ and delivered_, the workers read opened_.
  std::mutex mutex_;
  std::condition_variable task_ready_;
  std::condition_variable batch_ready_;
  std::vector<Slot> slots_;
  int64_t opened_ = 0;     // ready to be worked on
  int64_t working_ = 0;    // the first that still has a task to give out
  int64_t delivered_ = 0;  // given to the caller
  bool stop_ = false;
  std::vector<std::thread> workers_;
};

absl::Status CheckOptions(const DataConfig& config, const ImageSource& source,
                          const LoaderOptions& o) {
  CHECK(o.batch_size > 0 && o.world > 0 && o.rank >= 0 && o.rank < o.world && o.start_epoch >= 0)
      << "loader with batch size " << o.batch_size << ", rank " << o.rank << " of " << o.world
      << ", epoch " << o.start_epoch;
  if (o.training && MixOptionsOf(config).enabled() && o.batch_size % 2 != 0) {
    return ConfigError(
        absl::StrCat("data.mixup, data.cutmix: samples are mixed in pairs, so the "
                     "batch size must be even; found ",
                     o.batch_size));
  }
  if (o.num_classes != 0 && o.num_classes < source.num_classes()) {
    return ConfigError(absl::StrCat("the model has ", o.num_classes, " classes, but ",
                                    source.description(), " has ", source.num_classes()));
  }
  return absl::OkStatus();
}

int64_t CountBatches(const DataConfig& config, int64_t n, const LoaderOptions& o) {
  if (!o.training) {
    // As many on every rank: the first rank has the most samples.
    return (EpochOrder::Evaluation(n, 0, o.world).size() + o.batch_size - 1) / o.batch_size;
  }
  std::vector<int32_t> any_order(n);
  return EpochOrder::Training(std::move(any_order), config.repeated_aug, o.rank, o.world).size() /
         o.batch_size;
}

}  // namespace

int64_t LoaderStats::num_bad() const { return std::accumulate(bad.begin(), bad.end(), int64_t{0}); }

absl::StatusOr<std::unique_ptr<Loader>> Loader::Create(const DataConfig& config,
                                                       const ImageSource& source,
                                                       const LoaderOptions& options) {
  RETURN_IF_ERROR(CheckOptions(config, source, options));
  const int64_t batches = CountBatches(config, source.num_samples(), options);
  if (batches == 0) {
    return DataError(absl::StrCat(source.description(), ": ", source.num_samples(),
                                  " samples over ", options.world,
                                  " ranks do not fill one batch of ", options.batch_size,
                                  "; use a smaller batch or more data"));
  }
  LoaderOptions o = options;
  if (o.start_batch == batches) {
    o.start_batch = 0;
    ++o.start_epoch;
  }
  if (o.start_batch < 0 || o.start_batch > batches) {
    return DataError(absl::StrCat("cannot resume at batch ", o.start_batch, ": ",
                                  source.description(), " has ", batches,
                                  " batches per epoch; were the data or the batch size changed?"));
  }
  ASSIGN_OR_RETURN(std::unique_ptr<SampleLoader> samples,
                   SampleLoader::Create(config, source, o.training, o.epochs - o.start_epoch));
  cv::setNumThreads(0);
  return std::make_unique<LoaderImpl>(config, source, o, std::move(samples), batches);
}

}  // namespace tessera
