#include "train/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "absl/strings/str_replace.h"
#include "data/transforms/sample_transform.h"
#include "models/registry.h"
#include "tests/data/data_testing.h"
#include "train/memory.h"
#include "train/model_setup.h"
#include "train/optimizer.h"
#include "train/resume_check.h"

namespace tessera::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(CheckConfig, AcceptsTheDefaults) { EXPECT_TRUE(CheckConfig(RunConfig()).ok()); }

TEST(CheckConfig, NamesTheKeyThatDoesNotGoWithTheOthers) {
  const auto error = [](const std::function<void(RunConfig&)>& change) {
    RunConfig config;
    change(config);
    const absl::Status status = CheckConfig(config);
    EXPECT_EQ(ExitCode(status), 2);
    return std::string(status.message());
  };
  EXPECT_THAT(error([](RunConfig& c) { c.output = ""; }), HasSubstr("output: "));
  EXPECT_THAT(error([](RunConfig& c) { c.optim.betas = {}; }), HasSubstr("optim.betas: found 0"));
  EXPECT_THAT(error([](RunConfig& c) { c.optim.betas = {0.9, 0.9, 0.9}; }), HasSubstr("found 3"));
  EXPECT_THAT(error([](RunConfig& c) { c.train.accumulate = 3; }),
              AllOf(HasSubstr("train.accumulate: 3"), HasSubstr("128")));
  EXPECT_THAT(error([](RunConfig& c) { c.train.finetune = true; }),
              HasSubstr("train.init_weights"));
  EXPECT_THAT(error([](RunConfig& c) {
                c.optim.name = "sgd";
                c.optim.momentum = 0;
              }),
              HasSubstr("optim.nesterov"));
}

// Every run under configs/ but for its data set, which is not here.
TEST(Recipes, AreValid) {
  int found = 0;
  for (const auto& file : std::filesystem::recursive_directory_iterator("configs")) {
    if (file.path().extension() != ".yaml") continue;
    SCOPED_TRACE(file.path());
    RunConfig config;
    ASSERT_TRUE(ReadConfigFile(file.path(), {}, &config).ok());
    if (config.model.Find("name") == nullptr) continue;  // what recipes share
    ++found;
    EXPECT_EQ(CheckConfig(config), absl::OkStatus());
    EXPECT_EQ(SampleTransform::Create(config.data, /*training=*/true).status(), absl::OkStatus());
    const auto model = BuildModel(config.model, 0);
    ASSERT_TRUE(model.ok()) << model.status();
    const int64_t size = config.data.image_size;
    EXPECT_EQ((*model)->CheckImageSize(size, size), absl::OkStatus());
    EXPECT_EQ(CheckNoWeightDecay(config.optim, **model), absl::OkStatus());
  }
  EXPECT_GT(found, 30);
}

TEST(BuildModel, GivesTheDefaultClassesUnlessThereIsAnOption) {
  const auto classes = [](const char* yaml, int64_t default_classes) {
    return Unwrap(BuildModel(Unwrap(ParseYaml(yaml, "test")), default_classes))->num_classes();
  };
  EXPECT_EQ(classes("name: davit", 0), 1000);
  EXPECT_EQ(classes("name: davit", 7), 7);
  EXPECT_EQ(classes("{name: davit, num_classes: 9}", 7), 9);
}

TEST(BuildModel, SaysWhichNamesThereAre) {
  const auto message = [](const char* yaml) {
    const auto model = BuildModel(Unwrap(ParseYaml(yaml, "a.yaml")), 0);
    EXPECT_EQ(ExitCode(model.status()), 2);
    return std::string(model.status().message());
  };
  EXPECT_THAT(message("name: davit_tinny"),
              AllOf(HasSubstr("a.yaml:1:7: model.name"), HasSubstr("did you mean 'davit_tiny'?")));
  EXPECT_THAT(message("name: resnet50"), HasSubstr("`tessera models`"));
  EXPECT_THAT(message("depths: [1]"), HasSubstr("name"));
  EXPECT_THAT(message("{name: davit, depth: [1]}"), HasSubstr("did you mean 'depths'?"));
}

TEST(ResolvedModel, BuildsTheSameModelAgain) {
  const ConfigNode node = Unwrap(ParseYaml("{name: davit_small, num_classes: 3}", "test"));
  const auto model = Unwrap(BuildModel(node, 0));
  const ConfigNode resolved = ResolvedModel(node, *model);
  const auto again = Unwrap(BuildModel(resolved, 0));
  EXPECT_EQ(DumpYaml(ResolvedModel(resolved, *again)), DumpYaml(resolved));
  EXPECT_EQ(ParameterStore(*again, 1, false).num_parameters(),
            ParameterStore(*model, 1, false).num_parameters());
}

TEST(CheckResumable, NamesEveryKeyThatChangesTheSteps) {
  RunConfig saved;
  saved.model = Unwrap(ParseYaml("{name: davit, depths: [1, 1]}", "test"));
  RunConfig now = saved;
  now.output = "elsewhere";
  now.data.root = "/other/disk";
  now.data.workers = 9;
  now.train.keep_checkpoints = 7;
  EXPECT_TRUE(CheckResumable(DumpConfig(saved), DumpConfig(now)).ok());
  // Written before there was this setting.
  const std::string older =
      absl::StrReplaceAll(DumpConfig(saved), {{"  skip_loss_above: 0\n", ""}});
  EXPECT_NE(older, DumpConfig(saved));
  EXPECT_TRUE(CheckResumable(older, DumpConfig(now)).ok());
  now.model = Unwrap(ParseYaml("{name: davit, depths: [1, 2], ffn: false}", "test"));
  now.train.seed = 43;
  const absl::Status status = CheckResumable(DumpConfig(saved), DumpConfig(now));
  EXPECT_EQ(ExitCode(status), 2);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("model.depths was [1, 1], is [1, 2]"),
            HasSubstr("model.ffn was absent, is false"), HasSubstr("train.seed was 42, is 43"),
            Not(HasSubstr("data.root")), Not(HasSubstr("workers"))));
}

class Memory : public ::testing::Test {
 protected:
  Memory() : model_(Unwrap(Unwrap(FindModel("davit_tiny"))->create(ConfigNode()))) {}
  std::string Message(double available) const {
    const absl::Status status = CheckMemory(*model_, config_, available);
    if (status.ok()) return "fits";
    EXPECT_EQ(ExitCode(status), 4);
    return std::string(status.message());
  }
  RunConfig config_;
  std::unique_ptr<ImageModel> model_;
};

TEST_F(Memory, CountsParametersByTheirBuffers) {
  const double n = 28360168;
  config_.train.precision = "fp32";
  StepMemory memory = EstimateStepMemory(*model_, config_);
  EXPECT_EQ(memory.parameters, 4 * n);
  EXPECT_EQ(memory.gradients, 4 * n);
  EXPECT_EQ(memory.optimizer, 8 * n);
  config_.train.precision = "bf16";
  config_.train.ema_decay = 0.9;
  memory = EstimateStepMemory(*model_, config_);
  EXPECT_EQ(memory.parameters, 6 * n);
  EXPECT_EQ(memory.optimizer, 12 * n);
  config_.optim.name = "sgd";
  EXPECT_EQ(EstimateStepMemory(*model_, config_).optimizer, 8 * n);
}

TEST_F(Memory, GrowsWithThePartOfABatch) {
  const StepMemory whole = EstimateStepMemory(*model_, config_);
  config_.train.accumulate = 4;
  const StepMemory quarter = EstimateStepMemory(*model_, config_);
  EXPECT_DOUBLE_EQ(quarter.activations, whole.activations / 4);
  EXPECT_DOUBLE_EQ(quarter.workspace, whole.workspace / 4);
  EXPECT_EQ(quarter.images, whole.images);
}

TEST_F(Memory, ErrorSaysWhatHoldsItAndWhatFits) {
  const StepMemory memory = EstimateStepMemory(*model_, config_);
  const double of_batch = memory.activations + memory.workspace;
  EXPECT_EQ(Message(memory.total()), "fits");
  EXPECT_THAT(Message(memory.total() - of_batch / 3),
              AllOf(HasSubstr("train.batch_size 128"), HasSubstr("\n  parameters "),
                    HasSubstr("\n  gradients "), HasSubstr("\n  optimizer "),
                    HasSubstr("\n  activations "), HasSubstr("\n  workspace "),
                    HasSubstr("\ntrain.accumulate=2 fits"), HasSubstr("checkpoint_blocks")));
  EXPECT_THAT(Message(memory.total() - of_batch * 0.9), HasSubstr("accumulate=16 fits"));
  EXPECT_THAT(Message(memory.model() * 1.01), HasSubstr("smaller data.image_size"));
  EXPECT_THAT(Message(memory.model() / 2), HasSubstr("smaller model"));
  config_.train.checkpoint_blocks = true;
  EXPECT_EQ(Message(memory.total() - memory.activations / 2), "fits");
}

TEST_F(Memory, OfThisMachineIsFound) {
  EXPECT_GT(AvailableMemory(Device::kCpu), 1e6);
  EXPECT_LT(AvailableMemory(Device::kCpu), 1e15);
}

}  // namespace
}  // namespace tessera::train
