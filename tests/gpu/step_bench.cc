// Times training steps of a model on the GPU: step_bench [MODEL [BATCH [SIZE]]], in both precisions.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "core/allocator.h"
#include "core/check.h"
#include "core/device_runtime.h"
#include "core/random.h"
#include "models/registry.h"
#include "tensor/ops/softmax_cross_entropy/softmax_cross_entropy.h"
#include "train/step.h"

namespace tessera::train {
namespace {

constexpr int kWarmUps = 3, kSteps = 10;

Tensor RandomImages(int64_t batch, int64_t size) {
  const Tensor images = Tensor::Empty({batch, size, size, 3}, DType::kF32);
  RandomStream random(1, Purpose::kTest);
  for (int64_t i = 0; i < images.numel(); ++i) {
    images.data<float>()[i] = static_cast<float>(random.Uniform(-2, 2));
  }
  return images;
}

void TimeSteps(const std::string& name, DType dtype, const Tensor& images) {
  const absl::StatusOr<const ModelVariant*> variant = FindModel(name);
  CHECK(variant.ok()) << variant.status();
  absl::StatusOr<std::unique_ptr<ImageModel>> model = (*variant)->create(ConfigNode());
  CHECK(model.ok()) << model.status();
  ParameterStore store(**model, 0, dtype == DType::kBF16);
  store.MoveTo(Device::kCuda);
  Optimizer optimizer(OptimConfig(), store, 0.0);
  const std::vector<int32_t> labels(images.dim(0), 1);
  const Tensor targets = ops::SmoothedOneHot(labels, (*model)->num_classes(), 0.1);
  ResetPeakBytes(Device::kCuda);
  std::vector<double> seconds;
  for (int step = 0; step < kWarmUps + kSteps; ++step) {
    const absl::Time start = absl::Now();
    const StepResult result = TrainStep(**model, store, optimizer, {.compute_dtype = dtype}, images,
                                        targets, step, 1e-5);
    CHECK(result.updated) << "step " << step << ": loss " << result.loss;
    RuntimeOf(Device::kCuda).Synchronize();
    if (step >= kWarmUps) seconds.push_back(absl::ToDoubleSeconds(absl::Now() - start));
  }
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2];
  const double mib = 0x1p-20;
  std::printf("%s %s: batch %lld, %.2f ms a step, %.0f img/s, %.0f MiB\n", name.c_str(), Name(dtype),
              static_cast<long long>(images.dim(0)), 1e3 * median,
              static_cast<double>(images.dim(0)) / median,
              mib * static_cast<double>(GetAllocatorStats(Device::kCuda).peak_bytes_in_use));
}

int Main(int argc, char** argv) {
  const std::string problem = RuntimeOf(Device::kCuda).Problem();
  if (!problem.empty()) {
    std::fprintf(stderr, "%s\n", problem.c_str());
    return 77;
  }
  const std::string name = argc > 1 ? argv[1] : "davit_tiny";
  const int64_t batch = argc > 2 ? std::atoll(argv[2]) : 128;
  const Tensor images = RandomImages(batch, argc > 3 ? std::atoll(argv[3]) : 224);
  for (const DType dtype : {DType::kBF16, DType::kF32}) TimeSteps(name, dtype, images);
  return 0;
}

}  // namespace
}  // namespace tessera::train

int main(int argc, char** argv) { return tessera::train::Main(argc, argv); }
