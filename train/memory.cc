#include "train/memory.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <new>
#include <string>

#include "absl/strings/numbers.h"
#include "core/allocator.h"
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

// The suggestion of an error: the least change that fits.
std::string WhatFits(const StepMemory& memory, const TrainConfig& train, double available) {
  const double rest = available - memory.model() - memory.images;
  const double of_one_image = (memory.activations + memory.workspace) *
                              static_cast<double>(train.accumulate) /
                              static_cast<double>(train.batch_size);
  if (rest < of_one_image) {
    return memory.model() > available ? "a smaller model is needed"
                                      : "a smaller data.image_size, train.batch_size or model is "
                                        "needed";
  }
  const char* checkpoint = train.checkpoint_blocks ? "" : ", or try train.checkpoint_blocks=true";
  for (int64_t parts = train.accumulate; parts <= train.batch_size; ++parts) {
    if (train.batch_size % parts != 0) continue;
    if (of_one_image * static_cast<double>(train.batch_size / parts) <= rest) {
      return absl::StrFormat("train.accumulate=%d fits%s", parts, checkpoint);
    }
  }
  return absl::StrCat("a smaller train.batch_size is needed", checkpoint);
}

// For the message of a process that ran out of memory.
struct LastCheck {
  StepMemory memory;
  TrainConfig train;
};
LastCheck& TheLastCheck() {
  static auto* const last = new LastCheck();
  return *last;
}

[[noreturn]] void ExitOutOfMemory(int64_t bytes) {
  static std::atomic<bool> reported{false};
  if (!reported.exchange(true)) {
    ReleaseCachedMemory(Device::kCpu);  // this message needs some
    const AllocatorStats stats = GetAllocatorStats(Device::kCpu);
    const LastCheck& last = TheLastCheck();
    std::string text = absl::StrFormat("tessera: out of memory: %s more were wanted with %s in use",
                                       bytes > 0 ? ShortBytes(bytes) : "some bytes",
                                       ShortBytes(stats.bytes_in_use));
    if (last.memory.total() > 0) {
      absl::StrAppend(&text, "; a training step needs about\n", last.memory.ToTable(),
                      WhatFits(last.memory, last.train, static_cast<double>(stats.bytes_in_use)));
    }
    std::fprintf(stderr, "%s\n", text.c_str());
  }
  std::_Exit(ExitCode(MemoryError("")));
}

}  // namespace

std::string StepMemory::ToTable() const {
  const std::pair<const char*, double> rows[] = {
      {"parameters", parameters},   {"gradients", gradients}, {"optimizer", optimizer},
      {"activations", activations}, {"workspace", workspace}, {"images", images}};
  std::string table;
  for (const auto& [name, bytes] : rows) {
    absl::StrAppendFormat(&table, "  %-12s %9s\n", name, Bytes(bytes));
  }
  return table;
}

StepMemory EstimateStepMemory(const ImageModel& model, const RunConfig& config) {
  const TrainConfig& train = config.train;
  const bool bf16 = train.precision == "bf16";
  const double compute_bytes = bf16 ? 2 : 4;
  const auto size = config.data.image_size;
  double parameters = 0;
  // Visiting changes nothing, but hands out parameters that may be changed.
  const_cast<ImageModel&>(model).VisitParameters([&](const std::string&, Parameter& p) {
    parameters += static_cast<double>(p.shape().numel());
  });
  const int moments = config.optim.name == "adamw" ? 2 : config.optim.momentum > 0 ? 1 : 0;
  StepMemory memory;
  memory.parameters = parameters * (bf16 ? 6 : 4);
  memory.gradients = parameters * 4;
  memory.optimizer = parameters * 4 * (moments + (train.ema_decay > 0 ? 1 : 0));
  const double part = static_cast<double>(train.batch_size) / static_cast<double>(train.accumulate);
  for (const StageCost& cost : model.Costs(size, size)) {
    memory.activations += part * (4.0 * static_cast<double>(cost.saved_f32) +
                                  compute_bytes * static_cast<double>(cost.saved_compute));
    // The gradients of a residual map and of a hidden map four times as wide.
    memory.workspace = std::max(memory.workspace, part * (4.0 + 4.0 * compute_bytes) *
                                                      static_cast<double>(cost.output.numel()));
  }
  if (train.checkpoint_blocks) memory.activations *= kCheckpointedShare;
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
  TheLastCheck() = {memory, config.train};
  if (memory.total() <= available) return absl::OkStatus();
  return MemoryError(absl::StrFormat(
      "a training step at train.batch_size %d in %d part(s), %dx%d, needs about %s, but %s is "
      "available\n%s%s",
      config.train.batch_size, config.train.accumulate, config.data.image_size,
      config.data.image_size, Bytes(memory.total()), Bytes(available), memory.ToTable(),
      WhatFits(memory, config.train, available)));
}

void ExitWhenOutOfMemory() {
  SetOutOfMemoryHandler(ExitOutOfMemory);
  std::set_new_handler([] { ExitOutOfMemory(0); });
}

}  // namespace tessera::train
