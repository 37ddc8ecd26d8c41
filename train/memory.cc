#include "train/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "absl/strings/numbers.h"
#include "core/device_runtime.h"
#include "train/progress.h"

namespace tessera::train {
namespace {

// A batch in use, one being handed over, and those loaded ahead.
constexpr int64_t kBatchesBesidePrefetch = 2;
// Of the activations of all blocks, what is left when blocks run again in the backward pass: their
// inputs and the inside of one. A bound from below, as the check is to refuse what cannot work.
constexpr double kCheckpointedShare = 0.1;

// The number in a file of /proc or /sys that holds nothing else, or infinity.
double NumberIn(const std::string& path) {
  std::string text;
  double value = 0;
  std::ifstream file(path);
  if (file >> text && absl::SimpleAtod(text, &value)) return value;
  return std::numeric_limits<double>::infinity();
}

std::string Bytes(double bytes) { return ShortBytes(static_cast<int64_t>(bytes)); }

double NeededMemory(const StepMemory& memory, const RunConfig& config) {
  const double share = config.train.checkpoint_blocks ? kCheckpointedShare : 1.0;
  return memory.parameters + memory.images + share * memory.activations;
}

// The suggestion of an error: the least change that fits.
std::string WhatFits(const StepMemory& memory, RunConfig config, double available) {
  const TrainConfig train = config.train;
  const double rest = available - memory.parameters - memory.images;
  const double share = train.checkpoint_blocks ? kCheckpointedShare : 1.0;
  const double of_one_image =
      share * memory.activations * static_cast<double>(train.accumulate) / train.batch_size;
  if (rest < of_one_image) {
    return memory.parameters > available
               ? "; a smaller model is needed"
               : "; a smaller data.image_size, train.batch_size or model is needed";
  }
  for (int64_t parts = train.accumulate; parts <= train.batch_size; ++parts) {
    if (train.batch_size % parts != 0) continue;
    if (of_one_image * static_cast<double>(train.batch_size / parts) <= rest) {
      return absl::StrFormat(
          "; train.accumulate=%d fits%s", parts,
          train.checkpoint_blocks ? "" : ", or try train.checkpoint_blocks=true");
    }
  }
  return "";
}

}  // namespace

StepMemory EstimateStepMemory(const ImageModel& model, const RunConfig& config) {
  const TrainConfig& train = config.train;
  const bool bf16 = train.precision == "bf16";
  const auto size = config.data.image_size;
  double parameters = 0;
  // Visiting changes nothing, but hands out parameters that may be changed.
  const_cast<ImageModel&>(model).VisitParameters([&](const std::string&, Parameter& p) {
    parameters += static_cast<double>(p.shape().numel());
  });
  const int moments = config.optim.name == "adamw" ? 2 : config.optim.momentum > 0 ? 1 : 0;
  StepMemory memory;
  memory.parameters =
      parameters * (4 * (2 + moments) + (bf16 ? 2 : 0) + (train.ema_decay > 0 ? 4 : 0));
  const double part = static_cast<double>(train.batch_size) / static_cast<double>(train.accumulate);
  for (const StageCost& cost : model.Costs(size, size)) {
    memory.activations += part * (4.0 * static_cast<double>(cost.saved_f32) +
                                  (bf16 ? 2.0 : 4.0) * static_cast<double>(cost.saved_compute));
  }
  memory.images = 4.0 * static_cast<double>(config.data.prefetch + kBatchesBesidePrefetch) *
                  static_cast<double>(train.batch_size) *
                  static_cast<double>(size * size * model.in_chans());
  return memory;
}

double AvailableMemory(Device device) {
  if (device != Device::kCpu) return static_cast<double>(RuntimeOf(device).AvailableBytes());
  double available = std::numeric_limits<double>::infinity();
  std::ifstream info("/proc/meminfo");
  for (std::string key, value, unit; info >> key >> value; std::getline(info, unit)) {
    double kib = 0;
    if (key == "MemAvailable:" && absl::SimpleAtod(value, &kib)) available = 1024 * kib;
  }
  const std::string group = "/sys/fs/cgroup/";
  for (const auto& [limit, usage] :
       {std::pair("memory.max", "memory.current"),
        std::pair("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")}) {
    const double used = NumberIn(group + usage);
    if (used < NumberIn(group + limit)) {
      available = std::min(available, NumberIn(group + limit) - used);
    }
  }
  return available;
}

absl::Status CheckMemory(const ImageModel& model, const RunConfig& config, double available) {
  const StepMemory memory = EstimateStepMemory(model, config);
  const double needed = NeededMemory(memory, config);
  if (needed <= available) return absl::OkStatus();
  return MemoryError(absl::StrFormat(
      "a step at train.batch_size %d in %d part(s), %dx%d, needs about %s (%s for the model, %s "
      "for activations, %s for images), %s is available%s",
      config.train.batch_size, config.train.accumulate, config.data.image_size,
      config.data.image_size, Bytes(needed), Bytes(memory.parameters),
      Bytes(needed - memory.parameters - memory.images), Bytes(memory.images), Bytes(available),
      WhatFits(memory, config, available)));
}

}  // namespace tessera::train
