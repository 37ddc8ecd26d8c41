#include <algorithm>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "core/allocator.h"
#include "core/random.h"
#include "core/trace.h"
#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy.h"
#include "train/commands/commands.h"
#include "train/machine_rates.h"
#include "train/memory.h"
#include "train/model_setup.h"
#include "train/progress.h"
#include "train/step.h"

namespace tessera::train {
namespace {

struct Options {
  std::string model;
  std::vector<std::string> overrides;
  int64_t steps = 10;
  bool forward = false;
  bool ops = false;
  std::string trace;
};

// A model with random images and labels: what a step costs does not depend on them.
class Bench {
 public:
  explicit Bench(const RunConfig& config) : config_(config) {}

  absl::Status Prepare(bool forward) {
    ASSIGN_OR_RETURN(model_, BuildModel(config_.model, 0));
    if (model_->num_classes() == 0) {
      return ConfigError("model.num_classes: found 0, expected classes to train for");
    }
    const TrainConfig& train = config_.train;
    ASSIGN_OR_RETURN(const Device device, OpenDevice(train));
    if (!forward) RETURN_IF_ERROR(CheckMemory(*model_, config_, AvailableMemory(device)));
    store_ =
        std::make_unique<ParameterStore>(*model_, /*seed=*/0, ComputeDType(train) == DType::kBF16);
    const int64_t size = config_.data.image_size, batch = train.batch_size;
    RETURN_IF_ERROR(model_->CheckImageSize(size, size));
    images_ = Tensor::Empty({batch, size, size, model_->in_chans()}, DType::kF32);
    RandomStream random(0, Purpose::kTest);
    for (int64_t i = 0; i < images_.numel(); ++i) {
      images_.data<float>()[i] = static_cast<float>(random.Uniform(-1, 1));
    }
    std::vector<int32_t> labels(batch);
    for (int32_t& label : labels) {
      label = static_cast<int32_t>(random.Integer(0, model_->num_classes() - 1));
    }
    targets_ = ops::SmoothedOneHot(labels, model_->num_classes(), 0.1);
    store_->MoveTo(device);
    for (const StageCost& cost : model_->Costs(size, size)) macs_ += static_cast<double>(cost.macs);
    return absl::OkStatus();
  }

  absl::Status Step(bool forward) {
    if (forward) {
      ForwardContext context;
      context.compute_dtype = ComputeDType(config_.train);
      model_->Forward(images_.To(device()), context);
      FinishKernels(device());
      return absl::OkStatus();
    }
    // Forward passes alone need no moments.
    if (optimizer_ == nullptr) {
      optimizer_ = std::make_unique<Optimizer>(config_.optim, *store_, config_.train.ema_decay);
    }
    const StepOptions options = {.compute_dtype = ComputeDType(config_.train),
                                 .checkpoint_blocks = config_.train.checkpoint_blocks,
                                 .accumulate = config_.train.accumulate,
                                 .clip_grad = config_.optim.clip_grad};
    const StepResult result = TrainStep(*model_, *store_, *optimizer_, options, images_, targets_,
                                        step_, config_.optim.lr * 1e-3);
    return CheckUpdated(result, step_++);
  }

  double flops(bool forward) const {
    return (forward ? 2.0 : 6.0) * macs_ * static_cast<double>(images_.dim(0));
  }
  int64_t batch() const { return images_.dim(0); }
  Device device() const { return store_->device(); }

 private:
  RunConfig config_;
  std::unique_ptr<ImageModel> model_;
  std::unique_ptr<ParameterStore> store_;
  std::unique_ptr<Optimizer> optimizer_;
  Tensor images_, targets_;
  double macs_ = 0;
  int64_t step_ = 0;
};

// Time by kernel and by the node of the tape that ran it. `floor` is how much longer a kernel took
// than its FLOPs at the machine's rate, or its bytes at the bandwidth, whichever is more, would
// have.
void PrintOps(int64_t steps, DType compute_dtype, Device device) {
  const double peak = MeasurePeakFlops(compute_dtype, device), bandwidth = MeasureBandwidth(device);
  double total = 0;
  for (const TraceRow& row : TraceSummary()) total += row.self_ms;
  absl::PrintF("\n%-28s %7s %9s %6s %9s %8s %8s   (machine: %.0f GFLOP/s, %.0f GB/s)\n", "per step",
               "calls", "ms", "share", "GFLOP/s", "GB/s", "x floor", peak * 1e-9, bandwidth * 1e-9);
  for (const TraceRow& row : TraceSummary()) {
    const double seconds = row.self_ms * 1e-3;
    absl::PrintF("%-28s %7d %9.2f %5.1f%%", row.name, row.calls / steps,
                 row.self_ms / static_cast<double>(steps), 100 * row.self_ms / total);
    if (row.flops + row.bytes > 0) {
      absl::PrintF(" %9.1f %8.1f %8.2f", row.flops * 1e-9 / seconds, row.bytes * 1e-9 / seconds,
                   seconds / std::max(row.flops / peak, row.bytes / bandwidth));
    }
    absl::PrintF("\n");
  }
}

absl::Status RunBench(const Options& options) {
  const absl::Time begin = absl::Now();
  ASSIGN_OR_RETURN(const RunConfig config, ConfigOfModelArgument(options.model, options.overrides));
  RETURN_IF_ERROR(CheckConfig(config));
  Bench bench(config);
  RETURN_IF_ERROR(bench.Prepare(options.forward));
  RETURN_IF_ERROR(bench.Step(options.forward));
  const double first = absl::ToDoubleSeconds(absl::Now() - begin);
  for (int i = 0; i < 2; ++i) RETURN_IF_ERROR(bench.Step(options.forward));
  const int64_t allocations = GetAllocatorStats(bench.device()).num_system_allocs;
  if (options.ops) SetTraceMode(TraceMode::kSummary);
  if (!options.trace.empty()) SetTraceMode(TraceMode::kEvents);
  std::vector<double> times;
  for (int64_t i = 0; i < options.steps; ++i) {
    const absl::Time start = absl::Now();
    RETURN_IF_ERROR(bench.Step(options.forward));
    times.push_back(absl::ToDoubleSeconds(absl::Now() - start));
  }
  SetTraceMode(TraceMode::kOff);
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2];
  const double flops = bench.flops(options.forward) / median;
  const AllocatorStats stats = GetAllocatorStats(bench.device());
  absl::PrintF(
      "%s of %s on %s, batch %d, %dx%d, %s: median %.1f ms (%.1f to %.1f) = %.2f img/s\n"
      "%.1f GFLOP/s, MFU %.0f %%; tensors %s at most, %d blocks from the system in %d steps; "
      "first step finished after %.2f s\n",
      options.forward ? "forward pass" : "training step", options.model, Name(bench.device()),
      bench.batch(), config.data.image_size, config.data.image_size, config.train.precision,
      1e3 * median, 1e3 * times.front(), 1e3 * times.back(),
      static_cast<double>(bench.batch()) / median, flops * 1e-9,
      100 * flops / MeasurePeakFlops(ComputeDType(config.train), bench.device()),
      ShortBytes(stats.peak_bytes_in_use), stats.num_system_allocs - allocations, options.steps,
      first);
  if (options.ops) PrintOps(options.steps, ComputeDType(config.train), bench.device());
  if (!options.trace.empty()) return WriteChromeTrace(PosixFileSystem(), options.trace);
  return absl::OkStatus();
}

}  // namespace

void AddBenchCommand(CLI::App& app, absl::Status* result) {
  CLI::App* command = app.add_subcommand("bench", "Times training steps on random images");
  auto options = std::make_shared<Options>();
  command->add_option("model", options->model, "configuration file, or name of a model")
      ->required();
  command->add_option("overrides", options->overrides,
                      "changes to it, as in train.batch_size=8 train.precision=fp32");
  command->add_option("--steps", options->steps, "timed steps, after three others")
      ->check(CLI::Range(1, 100000));
  command->add_flag("--forward", options->forward, "forward passes instead of training steps");
  command->add_flag("--ops", options->ops, "also print the time by operation");
  command->add_option("--trace", options->trace, "write a Chrome trace to this file");
  command->callback([options, result] { *result = RunBench(*options); });
}

}  // namespace tessera::train
