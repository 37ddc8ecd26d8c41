#include "data/loader.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <opencv2/core.hpp>
#include <thread>
#include <utility>

#include "core/check.h"
#include "core/status.h"
#include "data/batch_builder.h"
#include "data/sample_loader.h"
#include "data/sampler.h"

namespace tessera {
namespace {

using internal::BadSample;
using internal::BatchBuilder;
using internal::PendingBatch;
using internal::RowReport;
using internal::SampleLoader;

constexpr int64_t kMaxWorkers = 32;  // that -1 may choose
constexpr std::chrono::milliseconds kAskToStopEvery(100);
constexpr int64_t kMaxBadListed = 20;
constexpr int64_t kBadAlwaysAllowed = 10;   // of an epoch
constexpr double kBadShareAllowed = 0.001;  // of an epoch's samples

struct Slot {
  PendingBatch pending;
  int64_t next_task = 0;
  int64_t tasks_left = 0;
};

int64_t NumWorkers(int64_t configured) {
  if (configured >= 0) return configured;
  const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
  return std::clamp<int64_t>(cores - 1, 1, kMaxWorkers);
}

class LoaderImpl : public Loader {
 public:
  LoaderImpl(const DataConfig& config, const ImageSource& source, const LoaderOptions& options,
             std::unique_ptr<SampleLoader> samples, int64_t batches)
      : source_(source),
        options_(options),
        batches_per_epoch_(batches),
        builder_(config, source, options, std::move(samples), batches),
        next_epoch_(options.start_epoch),
        next_batch_(options.start_batch) {
    const int64_t workers = NumWorkers(config.workers);
    slots_.resize(workers == 0 ? 1 : config.prefetch);
    OpenBatches();
    for (int64_t i = 0; i < workers; ++i) workers_.emplace_back([this] { Work(); });
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
      while (slot.next_task < builder_.num_tasks()) {
        builder_.RunTask(slot.pending, slot.next_task++);
      }
    } else {
      RETURN_IF_ERROR(WaitFor(slot));
    }
    error_ = Account(slot.pending);
    if (!error_.ok()) return error_;
    Batch batch = std::exchange(slot.pending.batch, {});
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

  // Prepares batches for the workers, as far ahead as there are slots.
  void OpenBatches() {
    while (opened_ - delivered_ < NumSlots() && next_epoch_ < options_.epochs) {
      if (order_ == nullptr) order_ = builder_.MakeOrder(next_epoch_);
      Slot& slot = slots_[opened_ % NumSlots()];
      builder_.Begin(next_epoch_, next_batch_, order_, &slot.pending);
      slot.next_task = 0;
      slot.tasks_left = builder_.num_tasks();
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

  void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (true) {
      task_ready_.wait(lock, [this] { return stop_ || working_ < opened_; });
      if (stop_) return;
      Slot& slot = slots_[working_ % NumSlots()];
      const int64_t task = slot.next_task++;
      if (slot.next_task == builder_.num_tasks()) ++working_;
      lock.unlock();
      builder_.RunTask(slot.pending, task);
      lock.lock();
      if (--slot.tasks_left == 0) batch_ready_.notify_all();
    }
  }

  absl::Status WaitFor(const Slot& slot) {
    const auto start = std::chrono::steady_clock::now();
    std::unique_lock<std::mutex> lock(mutex_);
    const auto is_ready = [&slot] { return slot.tasks_left == 0; };
    while (!batch_ready_.wait_for(lock, kAskToStopEvery, is_ready)) {
      if (options_.stop && options_.stop()) {
        return absl::CancelledError("stopped while waiting for pictures");
      }
    }
    const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
    stats_.wait_seconds += waited.count();
    return absl::OkStatus();
  }

  // Counts what happened in a finished batch, in the order of its rows, so that the counts and
  // when the loader gives up do not depend on the workers either.
  absl::Status Account(PendingBatch& pending) {
    if (pending.batch.epoch != accounted_epoch_) {
      accounted_epoch_ = pending.batch.epoch;
      bad_in_epoch_ = 0;
    }
    for (const RowReport& row : pending.rows) {
      for (const BadSample& bad : row.bad) RETURN_IF_ERROR(AccountBad(bad));
      RETURN_IF_ERROR(row.fatal);
      stats_.bytes_read += row.cost.bytes_read;
      stats_.damaged += row.cost.damaged;
    }
    pending.batch.num_valid = MoveSamplesUp(&pending.batch);
    stats_.samples += pending.batch.num_valid;
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

  const ImageSource& source_;
  const LoaderOptions options_;
  const int64_t batches_per_epoch_;
  const BatchBuilder builder_;

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
  if (o.training && internal::MixOptionsOf(config).enabled() && o.batch_size % 2 != 0) {
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
  if (o.num_classes == 0) o.num_classes = source.num_classes();
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
