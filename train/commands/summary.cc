#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "train/commands/commands.h"
#include "train/memory.h"
#include "train/model_setup.h"

namespace tessera::train {
namespace {

struct Options {
  std::string model;
  std::vector<std::string> overrides;
};

std::string MiB(double bytes) { return absl::StrFormat("%.1f", bytes / (1 << 20)); }

absl::Status PrintSummary(const Options& options) {
  ASSIGN_OR_RETURN(const RunConfig config, ConfigOfModelArgument(options.model, options.overrides));
  RETURN_IF_ERROR(CheckConfig(config));
  ASSIGN_OR_RETURN(const std::unique_ptr<ImageModel> model, BuildModel(config.model, 0));
  const int64_t size = config.data.image_size, batch = config.train.batch_size;
  const bool bf16 = config.train.precision == "bf16";
  const double compute_bytes = bf16 ? 2 : 4;

  std::printf("%-12s %-18s %14s %10s %14s\n", "stage", "output", "parameters", "GMACs",
              "saved MiB/img");
  int64_t parameters = 0;
  double macs = 0, saved = 0;
  for (const StageCost& cost : model->Costs(size, size)) {
    int64_t of_stage = 0;
    model->VisitParameters([&](const std::string& name, Parameter& p) {
      if (absl::StartsWith(name, cost.name + ".")) of_stage += p.shape().numel();
    });
    const double bytes = 4.0 * static_cast<double>(cost.saved_f32) +
                         compute_bytes * static_cast<double>(cost.saved_compute);
    std::printf("%-12s %-18s %14lld %10.3f %14s\n", cost.name.c_str(),
                cost.output.ToString().c_str(), static_cast<long long>(of_stage),
                static_cast<double>(cost.macs) * 1e-9, MiB(bytes).c_str());
    parameters += of_stage;
    macs += static_cast<double>(cost.macs);
    saved += bytes;
  }
  std::printf("%-12s %-18s %14lld %10.3f %14s\n\n", "total", "", static_cast<long long>(parameters),
              macs * 1e-9, MiB(saved).c_str());
  const StepMemory memory = EstimateStepMemory(*model, config);
  std::printf("one training step at batch %lld in %lld part(s), %s, %lldx%lld:\n",
              static_cast<long long>(batch), static_cast<long long>(config.train.accumulate),
              config.train.precision.c_str(), static_cast<long long>(size),
              static_cast<long long>(size));
  std::printf("  %.1f GFLOP, about %s MiB\n%s", 6 * macs * static_cast<double>(batch) * 1e-9,
              MiB(memory.total()).c_str(), memory.ToTable().c_str());
  return absl::OkStatus();
}

}  // namespace

void AddSummaryCommand(CLI::App& app, absl::Status* result) {
  CLI::App* command = app.add_subcommand(
      "summary", "Shows a model stage by stage: shapes, parameters, multiply-adds, memory");
  auto options = std::make_shared<Options>();
  command->add_option("model", options->model, "configuration file, or name of a model")
      ->required();
  command->add_option("overrides", options->overrides, "changes to it, as in data.image_size=384");
  command->callback([options, result] { *result = PrintSummary(*options); });
}

}  // namespace tessera::train
