// Pictures per second and thread from their files to normalised floats of 224 x 224, for the
// pictures of an image folder:
//   TESSERA_IMAGES=/data/imagenet bench_loader
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <vector>

#include "core/check.h"
#include "core/random.h"
#include "data/sample_loader.h"
#include "data/source.h"

namespace tessera {
namespace {

// The evaluation transform, or that of the usual ImageNet-1K recipe.
DataConfig ConfigFor(bool training) {
  DataConfig config;
  config.root = std::getenv("TESSERA_IMAGES");
  config.cache_mb = 0;
  config.crop_pct = 0.875;
  if (training) {
    config.interpolation = "random";
    config.auto_augment = "rand-m9-mstd0.5-inc1";
    config.reprob = 0.25;
  }
  return config;
}

// Argument: 1 for training. An iteration is a pass over all pictures.
void BM_Load(benchmark::State& state) {
  if (std::getenv("TESSERA_IMAGES") == nullptr) {
    return state.SkipWithError("TESSERA_IMAGES names no folder");
  }
  const bool training = state.range(0) != 0;
  const DataConfig config = ConfigFor(training);
  const auto source = OpenSource(config, Split::kTrain);
  CHECK(source.ok()) << source.status();
  const auto loader = internal::SampleLoader::Create(config, **source, training, /*epochs=*/1);
  CHECK(loader.ok()) << loader.status();
  const int64_t size = (*loader)->image_size(), pictures = (*source)->num_samples();
  std::vector<float> out(size * size * 3);
  uint64_t epoch = 0;
  for (auto _ : state) {
    for (int64_t i = 0; i < pictures; ++i) {
      RandomStream random(1, Purpose::kTest, epoch, static_cast<uint64_t>(i));
      const auto cost = (*loader)->Load(i, random, out.data());
      CHECK(cost.ok()) << cost.status();
    }
    ++epoch;
  }
  state.SetItemsProcessed(state.iterations() * pictures);
}
BENCHMARK(BM_Load)->ArgName("training")->Arg(1)->Arg(0)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tessera

BENCHMARK_MAIN();
