// Whole training steps of every family on device cuda, against the same steps on the CPU. With the
// emulator, where the host can not touch the device's memory, it also shows that nothing on the way
// does; on a machine with a GPU the same source runs there.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/allocator.h"
#include "core/check.h"
#include "core/device_runtime.h"
#include "core/random.h"
#include "models/registry.h"
#include "tests/tensor_testing.h"
#include "train/step.h"

#ifdef TESSERA_EMULATOR
#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime.h"
#endif

namespace tessera::train {
namespace {

constexpr int64_t kBatch = 2, kClasses = 5;

// Odd sizes everywhere, padded windows, every random layer, all kinds of attention.
constexpr char kDaVit[] =
    "{depths: [1, 1], embed_dims: [16, 32], num_heads: [1, 2], window_size: 3, num_classes: 5, "
    "drop_path_rate: 0.3, drop_rate: 0.2}";
// Channels that are no multiples of 8.
constexpr char kOddDaVit[] =
    "{depths: [1, 1], embed_dims: [6, 12], num_heads: [1, 2], window_size: 3, num_classes: 5, "
    "drop_path_rate: 0.3, drop_rate: 0.2}";
constexpr char kMaxVit[] =
    "{embed_dim: [8, 16], depths: [1, 1], stem_width: [8, 8], head_hidden_size: 16, "
    "transformer_cfg: {dim_head: 8, window_size: [2, 2], grid_size: [2, 2]}, num_classes: 5, "
    "drop_path_rate: 0.3}";
// Position biases from an MLP, layer scale, SiLU, symmetric padding, no hidden layer in the head.
constexpr char kMaxVitRw[] =
    "{embed_dim: [8, 16], depths: [1, 1], stem_width: [8, 8], stem_bias: false, head_hidden_size: "
    "0, conv_cfg: {expand_output: false, output_bias: false, act_layer: silu, padding: ''}, "
    "transformer_cfg: {dim_head: 8, head_first: true, rel_pos_type: mlp, rel_pos_dim: 16, "
    "window_size: [2, 2], grid_size: [2, 2], act_layer: gelu, init_values: 0.1}, num_classes: 5}";
constexpr char kBiFormer[] =
    "{depth: [1, 2], embed_dim: [16, 32], head_dim: 8, mlp_ratios: [3, 2], n_win: [2, 2], topks: "
    "[2, -2], num_classes: 5, drop_path_rate: 0.3}";
// Its position biases are resized from maps of 64 x 64 pixels.
constexpr char kTransNext[] =
    "{depths: [1, 1], embed_dims: [16, 32], num_heads: [2, 2], mlp_ratios: [2, 2], sr_ratios: [2, "
    "1], window_size: [3, 0], img_size: 64, num_classes: 5, drop_path_rate: 0.3}";

template <typename T>
T Unwrap(absl::StatusOr<T> value) {
  CHECK(value.ok()) << value.status();
  return *std::move(value);
}

struct Trainee {
  std::unique_ptr<ImageModel> model;
  std::unique_ptr<ParameterStore> store;
  std::unique_ptr<Optimizer> optimizer;
  StepOptions options;
};

struct Variant {
  const char* name;
  DType dtype;
  bool checkpoint_blocks = false;
  const char* optimizer = "adamw";
  const char* model = "davit";
  const char* options = kDaVit;
  int64_t height = 13, width = 10;
};

Trainee Make(const Variant& variant, Device device) {
  Trainee setup;
  setup.model =
      Unwrap(Unwrap(FindModel(variant.model))->create(Unwrap(ParseYaml(variant.options, "test"))));
  setup.store = std::make_unique<ParameterStore>(*setup.model, 3, variant.dtype == DType::kBF16);
  setup.store->MoveTo(device);
  OptimConfig config;
  config.name = variant.optimizer;
  setup.optimizer = std::make_unique<Optimizer>(config, *setup.store, 0.9);
  setup.options = {.compute_dtype = variant.dtype,
                   .checkpoint_blocks = variant.checkpoint_blocks,
                   .accumulate = 2,
                   .clip_grad = 1.0,
                   .seed = 11};
  return setup;
}

// ||a - b|| / ||b||
double Distance(const Tensor& a, const Tensor& b) {
  const Tensor on_cpu = a.To(Device::kCpu);
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < b.numel(); ++i) {
    difference += std::pow(At(on_cpu, i) - At(b, i), 2);
    norm += std::pow(At(b, i), 2);
  }
  return std::sqrt(difference / norm);
}

class DeviceStep : public testing::TestWithParam<Variant> {
 protected:
  static void SetUpTestSuite() {
    const std::string problem = RuntimeOf(Device::kCuda).Problem();
    if (problem.empty()) return;
    std::fprintf(stderr, "%s\n", problem.c_str());
    std::exit(77);
  }
  void SetUp() override {
#ifdef TESSERA_EMULATOR
    emulator::ForbidHostPointers();
#endif
    SetPoisonMemory(true);
    images_ = RandomTensor({kBatch, GetParam().height, GetParam().width, 3}, DType::kF32, 1, -2, 2);
    targets_ = RandomTensor({kBatch, kClasses}, DType::kF32, 2, 0, 1);
  }
  void TearDown() override { SetPoisonMemory(false); }

  StepResult Step(Trainee& setup, int64_t step) {
    return TrainStep(*setup.model, *setup.store, *setup.optimizer, setup.options, images_, targets_,
                     step, 1e-3);
  }

  Tensor images_, targets_;
};

TEST_P(DeviceStep, DoesWhatTheCpuDoes) {
  const Variant& variant = GetParam();
  Trainee cpu = Make(variant, Device::kCpu), cuda = Make(variant, Device::kCuda);
  // Of f32 sums in another order; of bf16 operands, rounded after another sum here and there.
  const double tolerance = variant.dtype == DType::kF32 ? 2e-5 : 3e-2;
  for (int64_t step = 0; step < 2; ++step) {
    const StepResult expected = Step(cpu, step), got = Step(cuda, step);
    EXPECT_NEAR(got.loss, expected.loss, tolerance * expected.loss);
    EXPECT_NEAR(got.grad_norm, expected.grad_norm, tolerance * expected.grad_norm);
    EXPECT_LT(Distance(cuda.store->grads(), cpu.store->grads()), tolerance);
  }
  // AdamW's first steps have the size of the learning rate even where the gradient is rounding.
  EXPECT_LT(Distance(cuda.store->values(), cpu.store->values()), 1e-2);
  EXPECT_LT(Distance(cuda.optimizer->averages(), cpu.optimizer->averages()), 1e-2);
  for (size_t m = 0; m < cpu.optimizer->moments().size(); ++m) {
    EXPECT_LT(Distance(cuda.optimizer->moments()[m].values, cpu.optimizer->moments()[m].values),
              2 * tolerance);
  }
  ForwardContext context;
  context.compute_dtype = variant.dtype;
  const Tensor logits = cpu.model->Forward(images_, context);
  EXPECT_LT(Distance(cuda.model->Forward(images_.To(Device::kCuda), context), logits),
            std::max(tolerance, 1e-2));
}

TEST_P(DeviceStep, GivesTheSameBitsAgain) {
  std::vector<float> expected;
  for (int run = 0; run < 3; ++run) {
#ifdef TESSERA_EMULATOR
    emulator::SetOrder(static_cast<emulator::Order>(run));
#endif
    Trainee setup = Make(GetParam(), Device::kCuda);
    Step(setup, 4);
    const Tensor values = setup.store->values().To(Device::kCpu);
    const std::vector<float> got(values.data<float>(), values.data<float>() + values.numel());
    if (run == 0) expected = got;
    EXPECT_EQ(got, expected) << "run " << run;
  }
#ifdef TESSERA_EMULATOR
  emulator::SetOrder(emulator::Order::kAscending);
#endif
}

// Batch norms with SGD: biases before a batch norm have no gradient but rounding, of which AdamW
// makes steps of full size.
INSTANTIATE_TEST_SUITE_P(
    Variants, DeviceStep,
    testing::Values(
        Variant{"fp32", DType::kF32}, Variant{"bf16", DType::kBF16},
        Variant{"fp32Checkpointed", DType::kF32, true},
        Variant{"fp32Sgd", DType::kF32, false, "sgd"},
        Variant{"fp32OddChannels", DType::kF32, false, "adamw", "davit", kOddDaVit},
        Variant{"fp32MaxVit", DType::kF32, false, "adamw", "maxvit", kMaxVit, 32, 32},
        Variant{"bf16MaxVit", DType::kBF16, false, "sgd", "maxvit", kMaxVit, 32, 32},
        Variant{"fp32MaxVitRw", DType::kF32, false, "sgd", "maxvit", kMaxVitRw, 32, 32},
        Variant{"fp32BiFormer", DType::kF32, false, "sgd", "biformer", kBiFormer, 32, 32},
        Variant{"bf16BiFormer", DType::kBF16, true, "sgd", "biformer", kBiFormer, 32, 32},
        Variant{"fp32TransNext", DType::kF32, false, "adamw", "transnext", kTransNext, 64, 64},
        Variant{"bf16TransNext", DType::kBF16, true, "adamw", "transnext", kTransNext, 64, 96}),
    [](const testing::TestParamInfo<Variant>& info) { return info.param.name; });

using DeviceStepOnce = DeviceStep;

TEST_P(DeviceStepOnce, AsksTheSystemForNoMemoryAfterTwoSteps) {
  Trainee setup = Make(GetParam(), Device::kCuda);
  for (int64_t step = 0; step < 2; ++step) Step(setup, step);
  const int64_t before = GetAllocatorStats(Device::kCuda).num_system_allocs;
  for (int64_t step = 2; step < 4; ++step) Step(setup, step);
  EXPECT_EQ(GetAllocatorStats(Device::kCuda).num_system_allocs, before);
}

TEST_P(DeviceStepOnce, LeavesTheWeightsAloneWhenTheLossIsNotFinite) {
  Trainee setup = Make(GetParam(), Device::kCuda);
  const Tensor before = setup.store->values().To(Device::kCpu);
  images_.data<float>()[7] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(Step(setup, 0).updated);
  const Tensor after = setup.store->values().To(Device::kCpu);
  EXPECT_EQ(std::memcmp(after.raw(), before.raw(), before.bytes()), 0);
}

INSTANTIATE_TEST_SUITE_P(Once, DeviceStepOnce, testing::Values(Variant{"bf16", DType::kBF16}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace tessera::train
