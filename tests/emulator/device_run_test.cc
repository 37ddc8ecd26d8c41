// `tessera train` with train.device=cuda, from the pictures to the checkpoints, on the emulator.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "core/check.h"
#include "data/loader.h"
#include "tests/data/data_testing.h"
#include "tests/emulator/device_memory.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/model_setup.h"
#include "train/run.h"

namespace tessera::train {
namespace {

class DeviceRun : public ::testing::Test {
 protected:
  void SetUp() override {
    emulator::ForbidHostPointers();
    WriteClassFolders(folder_, 9, 3);  // three steps an epoch
  }

  // Two epochs of three steps, each of which leaves a checkpoint.
  RunConfig Config(const std::string& name, const std::string& device) const {
    RunConfig config;
    const absl::Status read = ReadConfigFile(
        JoinPath(TESSERA_SOURCE_DIR, "configs/smoke.yaml"),
        {"output=" + (folder_ / name), "data.root=" + folder_.path(), "data.image_size=16",
         "data.pad_crop=0", "train.device=" + device, "train.epochs=2", "train.batch_size=3",
         "train.ema_decay=0.5", "train.save_every_minutes=1e-9", "train.keep_checkpoints=10",
         "model.drop_path_rate=0.2", "optim.warmup_epochs=0"},
        &config);
    CHECK(read.ok()) << read;
    return config;
  }
  void RunOn(const std::string& name, const std::string& device, bool resume = false) const {
    const absl::Status status = Train(Config(name, device), {.resume = resume});
    ASSERT_TRUE(status.ok()) << status;
  }
  std::string File(const std::string& run, int64_t step, const std::string& file) const {
    return Unwrap(PosixFileSystem().ReadFile(JoinPath(CheckpointPath(folder_ / run, step), file)));
  }
  Evaluation EvaluateOn(const std::string& run, const std::string& device) const {
    const LoadedModel loaded =
        Unwrap(LoadModel(BestPath(folder_ / run), "", {"train.device=" + device}));
    EXPECT_EQ(loaded.store->device(), device == "cuda" ? Device::kCuda : Device::kCpu);
    const auto source = Unwrap(OpenSource(loaded.config.data, Split::kVal));
    const auto loader = Unwrap(Loader::Create(loaded.config.data, *source, {.batch_size = 2}));
    return Unwrap(Evaluate(*loaded.model, loaded.compute_dtype, loaded.store->device(), *loader,
                           nullptr, nullptr));
  }

  TempFolder folder_;
};

TEST_F(DeviceRun, TrainsSavesResumesAndEvaluatesLikeTheCpu) {
  RunOn("cuda", "cuda");
  RunOn("cpu", "cpu");
  const Evaluation on_cuda = EvaluateOn("cuda", "cuda"), on_cpu = EvaluateOn("cuda", "cpu");
  EXPECT_EQ(on_cuda.samples, 3);
  EXPECT_EQ(on_cuda.top1(), on_cpu.top1());
  EXPECT_NEAR(on_cuda.loss, on_cpu.loss, 1e-5 * on_cpu.loss);
  // The six steps end where the CPU's do.
  EXPECT_NEAR(EvaluateOn("cpu", "cpu").loss, on_cpu.loss, 1e-2 * on_cpu.loss);

  // From the second step on again: the same bits.
  std::filesystem::copy(folder_ / "cuda", folder_ / "again",
                        std::filesystem::copy_options::recursive);
  for (int64_t step = 3; step <= 6; ++step) {
    std::filesystem::remove_all(CheckpointPath(folder_ / "again", step));
  }
  RunOn("again", "cuda", /*resume=*/true);
  for (const char* file : {"model.safetensors", "optimizer.safetensors", "ema.safetensors"}) {
    EXPECT_EQ(File("again", 6, file), File("cuda", 6, file)) << file;
  }
}

}  // namespace
}  // namespace tessera::train
