#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "core/communicator.h"
#include "core/file_system.h"
#include "train/commands/commands.h"
#include "train/confusion_matrix.h"
#include "train/evaluate.h"
#include "train/model_setup.h"
#include "train/progress.h"
#include "train/signals.h"

namespace tessera::train {
namespace {

struct Options {
  std::string weights;
  std::string config;
  std::string data;
  std::string csv;
  std::string confusion;
  bool classes = false;
  bool skip_bad = false;
  int64_t batch_size = 64;
  std::vector<std::string> overrides;
};

// Of this rank's share of the samples. Sets `stopped` if a signal ended it.
absl::StatusOr<Evaluation> EvaluateWithProgress(const LoadedModel& loaded,
                                                const ImageSource& source, Loader& loader,
                                                const Communicator& ranks, bool* stopped) {
  Progress progress({.total_steps = source.num_samples()},
                    ranks.is_first() ? Progress::StandardError() : Progress::Nowhere());
  const StopSignals signals;
  absl::Time last = absl::Now();
  double waited = 0;
  int64_t seen = 0;
  const auto stop = [&] { return *stopped = ranks.Any(signals.requested()); };
  return Evaluate(
      *loaded.model, loaded.compute_dtype, loaded.store->device(), loader, stop,
      [&](int64_t own, double loss) {
        // The others' share grows as this one.
        const int64_t done = std::min(own * ranks.size(), source.num_samples());
        const absl::Time now = absl::Now();
        const double wait = loader.stats().wait_seconds;
        progress.Update({.step = done,
                         .items = done - std::exchange(seen, done),
                         .seconds = absl::ToDoubleSeconds(now - std::exchange(last, now)),
                         .data_wait_seconds = wait - std::exchange(waited, wait),
                         .loss = loss});
      });
}

absl::Status WriteFiles(const Options& options, const Evaluation& evaluation,
                        const std::vector<std::string>& class_names) {
  FileSystem& fs = PosixFileSystem();
  if (!options.csv.empty()) {
    RETURN_IF_ERROR(WriteFileAtomically(fs, options.csv, ClassCsv(evaluation, class_names)));
  }
  if (!options.confusion.empty()) {
    RETURN_IF_ERROR(
        WriteFileAtomically(fs, options.confusion, ConfusionMatrixPng(evaluation, class_names)));
  }
  return absl::OkStatus();
}

absl::Status RunEval(const Options& options) {
  const Communicator& ranks = Communicator::World();
  ASSIGN_OR_RETURN(LoadedModel loaded,
                   LoadModel(options.weights, options.config, options.overrides));
  DataConfig& data = loaded.config.data;
  if (!options.data.empty()) data.root = options.data;
  data.skip_bad |= options.skip_bad;
  ASSIGN_OR_RETURN(const std::unique_ptr<ImageSource> source, OpenSource(data, Split::kVal));
  if (source->num_classes() > loaded.model->num_classes()) {
    return ConfigError(absl::StrFormat("%s has %d classes, the model %d", source->description(),
                                       source->num_classes(), loaded.model->num_classes()));
  }
  ASSIGN_OR_RETURN(
      const std::unique_ptr<Loader> loader,
      Loader::Create(
          data, *source,
          {.batch_size = options.batch_size, .rank = ranks.rank(), .world = ranks.size()}));
  const absl::Time start = absl::Now();
  bool stopped = false;
  ASSIGN_OR_RETURN(const Evaluation of_rank,
                   EvaluateWithProgress(loaded, *source, *loader, ranks, &stopped));
  if (stopped) return absl::CancelledError("stopped; nothing was written");
  const Evaluation evaluation = MergeRanks(ranks, of_rank);
  if (!ranks.is_first()) return absl::OkStatus();
  RETURN_IF_ERROR(WriteFiles(options, evaluation, source->class_names()));
  if (options.classes) absl::PrintF("%s\n", ClassTable(evaluation, source->class_names()));
  absl::PrintF(
      "%s: top-1 %.2f %%, top-5 %.2f %%, loss %.4f, calibration error %.2f %% on %d images",
      source->description(), evaluation.top1(), evaluation.top5(), evaluation.loss,
      evaluation.calibration_error(), evaluation.samples);
  if (evaluation.skipped > 0) absl::PrintF(", %d bad files left out", evaluation.skipped);
  absl::PrintF(" (%.1f s)\n", absl::ToDoubleSeconds(absl::Now() - start));
  return absl::OkStatus();
}

}  // namespace

void AddEvalCommand(CLI::App& app, absl::Status* result) {
  CLI::App* command = app.add_subcommand("eval", "Measures the accuracy of a model");
  auto options = std::make_shared<Options>();
  command->add_option("weights", options->weights, "checkpoint of a run, safetensors or .pth file")
      ->required();
  command->add_option("overrides", options->overrides,
                      "changes to the configuration, as in data.crop_pct=0.95");
  command->add_option("--config", options->config,
                      "configuration or model, needed for files of weights alone");
  command->add_option("--data", options->data,
                      "data set instead of the run's, as in shards:/data/cifar10");
  command->add_option("--batch-size", options->batch_size, "images at a time")
      ->check(CLI::Range(1, 65536));
  command->add_flag("--classes", options->classes, "also print a table by class");
  command->add_option("--csv", options->csv, "write the table by class to this file");
  command->add_option("--confusion", options->confusion,
                      "draw the confusion matrix, as in confusion.png");
  command->add_flag("--skip-bad", options->skip_bad, "leave out bad pictures instead of stopping");
  command->callback([options, result] { *result = RunEval(*options); });
}

}  // namespace tessera::train
