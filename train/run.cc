#include "train/run.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "core/allocator.h"
#include "core/communicator.h"
#include "core/device_runtime.h"
#include "data/loader.h"
#include "models/registry.h"
#include "train/bad_steps.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/layer_decay.h"
#include "train/machine_rates.h"
#include "train/memory.h"
#include "train/model_setup.h"
#include "train/progress.h"
#include "train/report.h"
#include "train/resume_check.h"
#include "train/run_log.h"
#include "train/schedule.h"
#include "train/signals.h"
#include "train/snapshot.h"
#include "train/step.h"
#include "train/weights.h"

namespace tessera::train {
namespace {

constexpr int64_t kMaxEvalBatch = 64;

double Seconds(absl::Time since) { return absl::ToDoubleSeconds(absl::Now() - since); }

// Of a device's tensors; on the CPU, of the whole process.
int64_t PeakBytes(Device device) {
  if (device != Device::kCpu) return GetAllocatorStats(device).peak_bytes_in_use;
  struct rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{1024} * usage.ru_maxrss;
}

class Run {
 public:
  explicit Run(const RunConfig& config) : config_(config) {}
  absl::Status Prepare(const TrainFlags& flags);
  absl::Status TryOneStep();
  absl::Status TrainToTheEnd();

 private:
  absl::Status OpenData();
  absl::Status OpenModel(bool resume);
  absl::Status OpenFolder(bool resume);
  absl::Status Resume();
  absl::StatusOr<std::unique_ptr<Loader>> OpenLoader() const;
  std::function<bool()> StopWhileWaiting() const;
  StepResult Step(const Batch& batch);
  absl::Status Log(const StepResult& result, double learning_rate, double images_per_second);
  bool EvaluationDue() const;
  absl::Status EvaluateAndSave(Progress& progress);
  absl::Status Save(const std::string& path);
  void SwapInAverages();
  absl::Status WriteReport();
  bool StopRequested() const { return signals_ && signals_->requested(); }
  bool AnyRankIsToStop() const { return ranks_.Any(StopRequested()); }
  int64_t total_steps() const { return schedule_.total_steps; }

  // All ranks take the same steps and hold the same weights; the first one writes and shows.
  const Communicator& ranks_ = Communicator::World();
  FileSystem& fs_ = PosixFileSystem();
  RunConfig config_;
  std::optional<StopSignals> signals_;  // from when the folder is the run's
  std::unique_ptr<DirectoryLock> lock_;
  std::unique_ptr<ImageSource> train_source_, val_source_;
  std::unique_ptr<Loader> loader_;
  std::unique_ptr<ImageModel> model_;
  std::unique_ptr<ParameterStore> store_;
  std::unique_ptr<Optimizer> optimizer_;
  std::optional<RunLog> log_;
  StepOptions step_options_;
  Schedule schedule_;
  int64_t steps_per_epoch_ = 0;
  std::optional<Evaluation> evaluation_;  // the last one
  double flops_per_image_ = 0;            // forward and backward
  TrainState state_;
};

absl::Status Run::OpenData() {
  ASSIGN_OR_RETURN(train_source_, OpenSource(config_.data, Split::kTrain));
  ASSIGN_OR_RETURN(val_source_, OpenSource(config_.data, Split::kVal));
  RETURN_IF_ERROR(CheckSameClasses(*train_source_, *val_source_));
  state_.class_names = train_source_->class_names();
  return absl::OkStatus();
}

absl::Status Run::OpenModel(bool resume) {
  const TrainConfig& train = config_.train;
  const int64_t classes = train_source_->num_classes();
  ASSIGN_OR_RETURN(model_, BuildModel(config_.model, classes));
  if (model_->num_classes() < classes) {
    return ConfigError(absl::StrFormat(
        "model.num_classes: found %d, expected the %d of the data set or more; without the option "
        "the model gets the data set's",
        model_->num_classes(), classes));
  }
  if (model_->in_chans() != 3) {
    return ConfigError(absl::StrFormat(
        "model.in_chans: found %d, expected 3: pictures are loaded in colour", model_->in_chans()));
  }
  RETURN_IF_ERROR(model_->CheckImageSize(config_.data.image_size, config_.data.image_size));
  RETURN_IF_ERROR(CheckNoWeightDecay(config_.optim, *model_));
  ASSIGN_OR_RETURN(const Device device, OpenDevice(train));
  if (device != Device::kCpu && ranks_.size() > 1) {
    return ConfigError(
        "train.device: found cuda, expected cpu: ranks only share work on CPUs so far");
  }
  RunConfig of_rank = config_;
  of_rank.train.batch_size /= ranks_.size();
  RETURN_IF_ERROR(CheckMemory(*model_, of_rank,
                              AvailableMemory(device) / static_cast<double>(ranks_.size_here())));
  config_.model = ResolvedModel(config_.model, *model_);
  state_.model = config_.model.Find("name")->scalar;
  state_.seed = static_cast<uint64_t>(train.seed);
  store_ =
      std::make_unique<ParameterStore>(*model_, state_.seed, ComputeDType(train) == DType::kBF16);
  if (!train.init_weights.empty() && !resume) {
    ASSIGN_OR_RETURN(const ModelVariant* variant, FindModel(state_.model));
    ASSIGN_OR_RETURN(const LoadReport report,
                     LoadWeights(fs_, train.init_weights, *store_,
                                 {.finetune = train.finetune, .variant = variant}));
    LOG(INFO) << train.init_weights << ": " << report.ToString();
  }
  ASSIGN_OR_RETURN(const std::vector<float> lr_scales,
                   LayerScales(*model_, *store_, config_.optim.layer_decay));
  store_->MoveTo(device);
  if (device != Device::kCpu) LOG(INFO) << "training on " << RuntimeOf(device).Description();
  optimizer_ = std::make_unique<Optimizer>(config_.optim, *store_, train.ema_decay, lr_scales);
  step_options_ = {.compute_dtype = ComputeDType(train),
                   .checkpoint_blocks = train.checkpoint_blocks,
                   .accumulate = train.accumulate,
                   .clip_grad = config_.optim.clip_grad,
                   .seed = state_.seed,
                   .ranks = &ranks_};
  const int64_t size = config_.data.image_size;
  for (const StageCost& cost : model_->Costs(size, size)) {
    flops_per_image_ += 6.0 * static_cast<double>(cost.macs);
  }
  return absl::OkStatus();
}

absl::Status Run::OpenFolder(bool resume) {
  if (resume && !fs_.Exists(config_.output)) {
    return absl::NotFoundError(
        absl::StrCat(config_.output, ": no run to resume; without --resume a new one starts"));
  }
  if (!ranks_.is_first()) {
    signals_.emplace();
    return resume ? Resume() : absl::OkStatus();
  }
  RETURN_IF_ERROR(fs_.CreateDirectories(config_.output));
  ASSIGN_OR_RETURN(lock_, fs_.LockDirectory(config_.output));
  signals_.emplace();
  ASSIGN_OR_RETURN(const std::vector<int64_t> steps, ListCheckpoints(fs_, config_.output));
  if (resume) return Resume();
  if (!steps.empty()) {
    return absl::AlreadyExistsError(absl::StrFormat(
        "%s already holds a run at step %d: --resume continues it, output=FOLDER starts another",
        config_.output, steps.front()));
  }
  return WriteFileAtomically(fs_, JoinPath(config_.output, "config.yaml"), DumpConfig(config_));
}

absl::Status Run::Resume() {
  ASSIGN_OR_RETURN(const Checkpoint checkpoint, OpenLatestCheckpoint(fs_, config_.output));
  RETURN_IF_ERROR(CheckResumable(checkpoint.config(), DumpConfig(config_)));
  state_ = checkpoint.state();
  RETURN_IF_ERROR(LoadSnapshot(checkpoint, *store_, *optimizer_));
  LOG(INFO) << "continuing " << checkpoint.path();
  return absl::OkStatus();
}

absl::Status Run::Save(const std::string& path) {
  if (!ranks_.is_first()) return absl::OkStatus();
  RETURN_IF_ERROR(SaveSnapshot(fs_, path, state_, DumpConfig(config_), *store_, *optimizer_));
  return PruneCheckpoints(fs_, config_.output, config_.train.keep_checkpoints);
}

absl::StatusOr<std::unique_ptr<Loader>> Run::OpenLoader() const {
  return Loader::Create(config_.data, *train_source_,
                        {.training = true,
                         .batch_size = config_.train.batch_size / ranks_.size(),
                         .seed = state_.seed,
                         .rank = ranks_.rank(),
                         .world = ranks_.size(),
                         .start_epoch = state_.epoch,
                         .start_batch = state_.batch,
                         .epochs = config_.train.epochs,
                         .num_classes = model_->num_classes(),
                         .stop = StopWhileWaiting()});
}

// For loaders. Several ranks only stop together, between batches.
std::function<bool()> Run::StopWhileWaiting() const {
  if (ranks_.size() > 1) return nullptr;
  return [this] { return StopRequested(); };
}

absl::Status Run::Prepare(const TrainFlags& flags) {
  RETURN_IF_ERROR(CheckConfig(config_));
  if (const int64_t parts = ranks_.size() * config_.train.accumulate;
      config_.train.batch_size % parts != 0) {
    return ConfigError(
        absl::StrFormat("train.batch_size: found %d, expected a multiple of %d, for %d rank(s) "
                        "with %d part(s) each",
                        config_.train.batch_size, parts, ranks_.size(), config_.train.accumulate));
  }
  RETURN_IF_ERROR(OpenData());
  RETURN_IF_ERROR(OpenModel(flags.resume));
  // A new run makes its folder when nothing is left to find fault with; one that is resumed finds
  // there where its data goes on.
  if (!flags.resume) {
    ASSIGN_OR_RETURN(loader_, OpenLoader());
  }
  if (!flags.dry_run) RETURN_IF_ERROR(OpenFolder(flags.resume));
  if (flags.resume) {
    ASSIGN_OR_RETURN(loader_, OpenLoader());
  }
  steps_per_epoch_ = loader_->batches_per_epoch();
  const auto steps = [&](double epochs) {
    return std::llround(epochs * static_cast<double>(steps_per_epoch_));
  };
  schedule_ = {.lr = config_.optim.lr,
               .min_lr = config_.optim.min_lr,
               .warmup_lr = config_.optim.warmup_lr,
               .warmup_steps = steps(config_.optim.warmup_epochs),
               .cooldown_steps = steps(config_.optim.cooldown_epochs),
               .total_steps = steps_per_epoch_ * config_.train.epochs};
  LOG(INFO) << state_.model << ", " << store_->num_parameters() << " parameters; "
            << train_source_->description() << ": " << train_source_->num_samples()
            << " training images of " << train_source_->num_classes() << " classes; "
            << steps_per_epoch_ << " steps an epoch";
  return absl::OkStatus();
}

StepResult Run::Step(const Batch& batch) {
  const double lr = schedule_.LearningRate(state_.step);
  const StepResult result =
      TrainStep(*model_, *store_, *optimizer_, step_options_, batch.images, batch.targets,
                state_.step, lr, MaxLoss(config_.train.skip_loss_above, state_));
  ++state_.step;
  state_.epoch = batch.epoch;
  state_.batch = batch.index + 1;
  if (state_.batch == steps_per_epoch_) {
    ++state_.epoch;
    state_.batch = 0;
  }
  return result;
}

absl::Status Run::TryOneStep() {
  ASSIGN_OR_RETURN(const std::optional<Batch> batch, loader_->Next());
  const absl::Time start = absl::Now();
  const StepResult result = Step(*batch);
  RETURN_IF_ERROR(CheckUpdated(result, 1));
  if (!ranks_.is_first()) return absl::OkStatus();
  absl::PrintF("%s", DumpConfig(config_));
  absl::PrintF(
      "dry run: %d + %d images, %d steps; the first one took %.2f s, loss %.4f, memory "
      "%s; nothing was written\n",
      train_source_->num_samples(), val_source_->num_samples(), total_steps(), Seconds(start),
      result.loss, ShortBytes(PeakBytes(store_->device())));
  return absl::OkStatus();
}

absl::Status Run::Log(const StepResult& result, double learning_rate, double images_per_second) {
  if (!ranks_.is_first()) return absl::OkStatus();
  return log_->Write(state_.step, {{"train/loss", result.loss},
                                   {"train/grad_norm", result.grad_norm},
                                   {"train/lr", learning_rate},
                                   {"train/images_per_second", images_per_second},
                                   {"train/epoch", static_cast<double>(state_.step) /
                                                       static_cast<double>(steps_per_epoch_)}});
}

// Exchanges the values with their averages, which are what a run is judged by.
void Run::SwapInAverages() {
  const Tensor& averages = optimizer_->averages();
  if (!averages.defined()) return;
  const Tensor values = store_->values().Clone();
  store_->values().CopyFrom(averages);
  averages.CopyFrom(values);
  store_->RefreshCopies();
}

absl::Status Run::EvaluateAndSave(Progress& progress) {
  // Evaluation takes no more memory than training.
  const int64_t batch = config_.train.batch_size / (config_.train.accumulate * ranks_.size());
  ASSIGN_OR_RETURN(const std::unique_ptr<Loader> loader,
                   Loader::Create(config_.data, *val_source_,
                                  {.batch_size = std::min(kMaxEvalBatch, batch),
                                   .rank = ranks_.rank(),
                                   .world = ranks_.size(),
                                   .stop = StopWhileWaiting()}));
  const absl::Time start = absl::Now();
  bool stopped = false;
  SwapInAverages();
  const absl::StatusOr<Evaluation> of_rank = Evaluate(
      *model_, step_options_.compute_dtype, store_->device(), *loader,
      [&] { return stopped = AnyRankIsToStop(); }, nullptr);
  SwapInAverages();
  if (stopped || absl::IsCancelled(of_rank.status())) return absl::OkStatus();
  RETURN_IF_ERROR(of_rank.status());
  evaluation_ = MergeRanks(ranks_, *of_rank);
  const Evaluation* evaluation = &*evaluation_;
  const double top1 = evaluation->top1();
  const auto best = state_.metrics.find("best_top1");
  const bool better = best == state_.metrics.end() || top1 > best->second;
  state_.metrics["top1"] = top1;
  state_.metrics["evaluated_step"] = static_cast<double>(state_.step);
  if (better) state_.metrics["best_top1"] = top1;
  if (!ranks_.is_first()) return absl::OkStatus();
  progress.Print(absl::StrFormat(
      "epoch %.3g: top-1 %.2f %%, top-5 %.2f %%, loss %.4f on %d images in %.1f s%s",
      static_cast<double>(state_.step) / static_cast<double>(steps_per_epoch_), top1,
      evaluation->top5(), evaluation->loss, evaluation->samples, Seconds(start),
      evaluation->skipped > 0 ? absl::StrCat(" (", evaluation->skipped, " bad files left out)")
                              : ""));
  RETURN_IF_ERROR(log_->Write(
      state_.step,
      {{"val/top1", top1}, {"val/top5", evaluation->top5()}, {"val/loss", evaluation->loss}}));
  return better ? Save(BestPath(config_.output)) : absl::OkStatus();
}

absl::Status Run::WriteReport() {
  ReportContents contents;
  contents.title = absl::StrCat(state_.model, " on ", train_source_->description());
  contents.config = DumpConfig(config_);
  ASSIGN_OR_RETURN(contents.metrics, fs_.ReadFile(JoinPath(config_.output, "metrics.jsonl")));
  contents.evaluation = evaluation_ ? &*evaluation_ : nullptr;
  contents.class_names = state_.class_names;
  SwapInAverages();
  absl::StatusOr<std::vector<ReportSample>> samples = ReportSamples(
      *model_, step_options_.compute_dtype, config_.data, *val_source_, store_->device());
  SwapInAverages();
  if (!samples.ok()) return samples.status();
  contents.samples = *std::move(samples);
  return WriteFileAtomically(fs_, JoinPath(config_.output, "report.html"), ReportHtml(contents));
}

bool Run::EvaluationDue() const {
  const int64_t every = std::max<int64_t>(
      1, std::llround(config_.train.eval_every_epochs * static_cast<double>(steps_per_epoch_)));
  const auto evaluated = state_.metrics.find("evaluated_step");
  const double last = evaluated == state_.metrics.end() ? 0 : evaluated->second;
  return (state_.step % every == 0 || state_.step == total_steps()) &&
         static_cast<double>(state_.step) != last;
}

absl::Status Run::TrainToTheEnd() {
  if (ranks_.is_first()) {
    ASSIGN_OR_RETURN(log_, RunLog::Open(fs_, config_.output, state_.step));
  }
  const double peak_flops = MeasurePeakFlops(step_options_.compute_dtype, store_->device());
  Progress progress(
      {.total_steps = total_steps(), .peak_flops = peak_flops * static_cast<double>(ranks_.size())},
      ranks_.is_first() ? Progress::StandardError() : Progress::Nowhere());
  const RunParts parts = {fs_,         config_.output, *model_,         *store_,
                          *optimizer_, step_options_,  steps_per_epoch_};
  absl::Time last_save = absl::Now(), last_step = absl::Now();
  double waited = loader_->stats().wait_seconds;
  while (true) {
    // Before the step, so that an evaluation that was cut short is made up for after a resume.
    if (EvaluationDue()) {
      RETURN_IF_ERROR(EvaluateAndSave(progress));
      last_step = absl::Now();
    }
    if (state_.step == total_steps() || AnyRankIsToStop()) break;
    absl::StatusOr<std::optional<Batch>> next = loader_->Next();
    if (absl::IsCancelled(next.status())) break;
    ASSIGN_OR_RETURN(const std::optional<Batch> batch, std::move(next));
    CHECK(batch.has_value()) << "the loader ended at step " << state_.step;
    const double lr = schedule_.LearningRate(state_.step);
    const StepResult result = Step(*batch);
    RETURN_IF_ERROR(FollowStep(parts, result, *batch, &state_));
    const double seconds = Seconds(last_step);
    last_step = absl::Now();
    const double wait = loader_->stats().wait_seconds - waited;
    waited += wait;
    const double images = static_cast<double>(config_.train.batch_size);
    progress.Update({.step = state_.step,
                     .items = config_.train.batch_size,
                     .seconds = seconds,
                     .data_wait_seconds = wait,
                     .loss = result.loss,
                     .learning_rate = lr,
                     .flops = flops_per_image_ * images,
                     .peak_bytes = PeakBytes(store_->device())});
    if (state_.step % config_.train.log_every_steps == 0) {
      RETURN_IF_ERROR(Log(result, lr, images / seconds));
    }
    // Not among skipped steps: their weights may be the ones that went astray.
    if (state_.skipped_in_a_row == 0 &&
        Seconds(last_save) > 60 * config_.train.save_every_minutes) {
      RETURN_IF_ERROR(Save(CheckpointPath(config_.output, state_.step)));
      last_save = last_step = absl::Now();
    }
  }
  progress.Finish();
  RETURN_IF_ERROR(Save(CheckpointPath(config_.output, state_.step)));
  if (state_.step < total_steps() || EvaluationDue()) {
    return absl::CancelledError(absl::StrFormat(
        "stopped and saved at step %d of %d in %s; the same command with --resume continues",
        state_.step, total_steps(), config_.output));
  }
  if (!ranks_.is_first()) return absl::OkStatus();
  RETURN_IF_ERROR(WriteReport());
  const int64_t left_out = state_.step - state_.updates;
  absl::PrintF("done: %d steps%s; best top-1 %.2f %% in %s\n", state_.step,
               left_out > 0 ? absl::StrFormat(" (%d skipped or undone)", left_out) : "",
               state_.metrics["best_top1"], BestPath(config_.output));
  return absl::OkStatus();
}

}  // namespace

absl::Status Train(const RunConfig& config, const TrainFlags& flags) {
  Run run(config);
  RETURN_IF_ERROR(run.Prepare(flags));
  const absl::Status status = flags.dry_run ? run.TryOneStep() : run.TrainToTheEnd();
  // With all files written; an error does not wait for the others, which it ends.
  if (status.ok() || absl::IsCancelled(status)) Communicator::World().Barrier();
  return status;
}

}  // namespace tessera::train
