#include "train/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/check.h"
#include "core/random.h"
#include "tests/core/faulty_file_system.h"

namespace tessera::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tensor Filled(const Shape& shape, float value) {
  Tensor t = Tensor::Empty(shape, DType::kF32);
  std::fill_n(t.data<float>(), t.numel(), value);
  return t;
}

CheckpointContents ContentsOf(int64_t step) {
  CheckpointContents contents;
  contents.state = {.model = "davit_tiny",
                    .step = step,
                    .epoch = 2,
                    .batch = 3,
                    .seed = ~uint64_t{0},
                    .metrics = {{"top1", 0.1}, {"loss", NAN}}};
  contents.config = "model:\n  name: davit_tiny\n";
  const float value = static_cast<float>(step);
  contents.groups["model"] = {{"head.weight", Filled({3, 5}, value)},
                              {"head.bias", Filled({3}, -value)}};
  contents.groups["optimizer"] = {{"exp_avg.head.bias", Filled({3}, 2 * value)},
                                  {"count", Tensor::From<int64_t>({}, std::vector<int64_t>{step})}};
  return contents;
}

class Checkpoints : public ::testing::Test {
 protected:
  void SetUp() override {
    FLAGS_minloglevel = google::GLOG_ERROR;  // damaged checkpoints are warned about
    ASSERT_TRUE(fs_.CreateDirectories("/run").ok());
    ASSERT_TRUE(fs_.SyncDirectory("/").ok());
  }
  absl::Status Save(int64_t step) {
    return SaveCheckpoint(fs_, CheckpointPath("/run", step), ContentsOf(step));
  }
  void Damage(const std::string& path) {
    std::string bytes = *fs_.ReadFile(path);
    bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
    ASSERT_TRUE(WriteFileAtomically(fs_, path, bytes).ok());
  }
  // The step of the newest good checkpoint, of which every tensor is checked; -1 if there is none.
  int64_t LatestStep() {
    const auto checkpoint = OpenLatestCheckpoint(fs_, "/run");
    return checkpoint.ok() ? CheckedStep(*checkpoint) : -1;
  }
  int64_t CheckedStep(const Checkpoint& checkpoint) {
    const int64_t step = checkpoint.state().step;
    EXPECT_EQ(*checkpoint.group("model")->Read("head.bias")->data<float>(),
              -static_cast<float>(step));
    EXPECT_EQ(*checkpoint.group("optimizer")->Read("count")->data<int64_t>(), step);
    EXPECT_EQ(checkpoint.config(), ContentsOf(step).config);
    return step;
  }
  int64_t BestStep() {
    const auto best = Checkpoint::Open(fs_, BestPath("/run"));
    return best.ok() ? CheckedStep(*best) : -1;
  }

  FaultyFileSystem fs_;
};

TEST_F(Checkpoints, GiveBackWhatWasSaved) {
  ASSERT_TRUE(Save(100).ok());
  const auto checkpoint = Checkpoint::Open(fs_, "/run/checkpoints/step_000000100");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TrainState& state = checkpoint->state();
  EXPECT_EQ(state.model, "davit_tiny");
  EXPECT_EQ(state.step, 100);
  EXPECT_EQ(state.epoch, 2);
  EXPECT_EQ(state.batch, 3);
  EXPECT_EQ(state.seed, ~uint64_t{0});
  EXPECT_EQ(state.metrics.at("top1"), 0.1);
  EXPECT_TRUE(std::isnan(state.metrics.at("loss")));
  const std::vector<NamedTensor> model = {{"head.weight", Filled({3, 5}, 0)},
                                          {"head.bias", Filled({3}, 0)}};
  ASSERT_TRUE(checkpoint->Read("model", model).ok());
  EXPECT_EQ(model[0].second.data<float>()[14], 100.0f);
  EXPECT_EQ(model[1].second.data<float>()[2], -100.0f);
  const std::vector<NamedTensor> optimizer = {{"count", Tensor::Zeros({}, DType::kI64)},
                                              {"exp_avg.head.bias", Filled({3}, 0)}};
  ASSERT_TRUE(checkpoint->Read("optimizer", optimizer).ok());
  EXPECT_EQ(*optimizer[0].second.data<int64_t>(), 100);
  EXPECT_EQ(checkpoint->group("ema"), nullptr);
  EXPECT_EQ(checkpoint->Read("ema", {}).message(),
            "/run/checkpoints/step_000000100: holds no ema.safetensors");
}

TEST_F(Checkpoints, RefuseTensorsOfAnotherModel) {
  ASSERT_TRUE(Save(1).ok());
  const auto checkpoint = Checkpoint::Open(fs_, CheckpointPath("/run", 1));
  ASSERT_TRUE(checkpoint.ok());
  const auto error = [&](std::vector<NamedTensor> tensors) {
    return std::string(checkpoint->Read("model", tensors).message());
  };
  const Tensor weight = Filled({3, 5}, 0), bias = Filled({3}, 0);
  EXPECT_EQ(error({{"head.weight", weight}, {"head.bias", bias}}), "");
  EXPECT_THAT(error({{"head.weight", weight}}), HasSubstr("'head.bias' is not expected"));
  EXPECT_THAT(error({{"head.weight", weight}, {"head.bias", bias}, {"x", bias}}),
              HasSubstr("'x' is missing"));
  EXPECT_THAT(error({{"head.weight", weight}, {"head.bias", Filled({4}, 0)}}),
              HasSubstr("'head.bias' is F32[3], expected f32[4]"));
  EXPECT_THAT(error({{"head.weight", weight}, {"head.bias", Tensor::Zeros({3}, DType::kF64)}}),
              HasSubstr("expected f64[3]"));
}

TEST_F(Checkpoints, NameEveryDamagedFile) {
  ASSERT_TRUE(Save(1).ok());
  const std::string path = CheckpointPath("/run", 1);
  Damage(JoinPath(path, "model.safetensors"));
  ASSERT_TRUE(fs_.Remove(JoinPath(path, "config.yaml")).ok());
  const absl::Status status = Checkpoint::Open(fs_, path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(
      status.message(),
      HasSubstr(path + ": damaged: config.yaml is missing; model.safetensors has checksum"));
  EXPECT_EQ(Checkpoint::Open(fs_, "/run/none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Checkpoint::Open(fs_, "/run").status().message(),
            "/run: is the folder of a run; its newest checkpoint is " + CheckpointPath("/run", 1));
  EXPECT_THAT(Checkpoint::Open(fs_, "/run/checkpoints").status().message(),
              HasSubstr("/run/checkpoints: is it a checkpoint?"));
}

TEST_F(Checkpoints, NoByteCanBeChangedOrCutOffUnnoticed) {
  ASSERT_TRUE(Save(1).ok());
  const std::string path = CheckpointPath("/run", 1);
  const std::vector<std::string> names = *fs_.ListDirectory(path);
  for (const std::string& name : names) {
    const std::string file = JoinPath(path, name), good = *fs_.ReadFile(file);
    for (size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ 4);
      ASSERT_TRUE(WriteFileAtomically(fs_, file, bad).ok());
      EXPECT_FALSE(Checkpoint::Open(fs_, path).ok()) << name << " byte " << i;
      ASSERT_TRUE(WriteFileAtomically(fs_, file, good.substr(0, i)).ok());
      EXPECT_FALSE(Checkpoint::Open(fs_, path).ok()) << name << " cut at " << i;
    }
    ASSERT_TRUE(WriteFileAtomically(fs_, file, good).ok());
  }
  EXPECT_EQ(LatestStep(), 1);
}

TEST_F(Checkpoints, StatesFromElsewhereEndInErrors) {
  const auto error_of = [&](const std::string& state) {
    const std::string path = "/run/made";
    EXPECT_TRUE(SaveCheckpoint(fs_, path, ContentsOf(1)).ok());
    std::string checksums = *fs_.ReadFile(path + "/checksums");
    EXPECT_TRUE(WriteFileAtomically(fs_, path + "/state.json", state).ok());
    // The error tells the checksum that the listing has to have.
    const std::string error(Checkpoint::Open(fs_, path).status().message());
    const size_t found = error.find("checksum "), expected = error.find("expected ");
    checksums.replace(checksums.find(error.substr(expected + 9, 16)), 16,
                      error.substr(found + 9, 16));
    EXPECT_TRUE(WriteFileAtomically(fs_, path + "/checksums", checksums).ok());
    return std::string(Checkpoint::Open(fs_, path).status().message());
  };
  EXPECT_THAT(error_of("[]"), HasSubstr("/run/made/state.json: expected a map"));
  EXPECT_THAT(error_of("{"), HasSubstr("/run/made/state.json:1:1"));
  EXPECT_THAT(error_of(R"({"format_version": 3})"),
              HasSubstr("format version 3, this program reads up to version 2"));
  EXPECT_THAT(error_of(R"({"format_version": 2, "step": -1})"),
              HasSubstr("'step': expected a non-negative integer"));
  const std::string counts =
      R"({"format_version": 1, "step": 1, "epoch": 0, "batch": 0, "seed": 7, "class_names": [])";
  EXPECT_THAT(error_of(R"({"format_version": 2)" + counts.substr(20) + "}"),
              HasSubstr("'updates': expected a non-negative integer"));
  EXPECT_THAT(error_of(counts + "}"), HasSubstr("'model': expected a string"));
  EXPECT_THAT(error_of(counts + R"(, "model": "m", "metrics": {"a": "b"}})"),
              HasSubstr("metric 'a': expected a number"));
  EXPECT_THAT(error_of(counts + R"(, "model": "m", "metrics": {}, "groups": [1]})"),
              HasSubstr("'groups'"));
  EXPECT_THAT(error_of(counts + R"(, "model": "m", "metrics": {}, "groups": ["ema"]})"),
              HasSubstr("ema.safetensors has no entry in checksums"));
}

TEST_F(Checkpoints, TheLatestGoodOneIsFound) {
  EXPECT_EQ(OpenLatestCheckpoint(fs_, "/run").status().code(), absl::StatusCode::kNotFound);
  for (const int64_t step : {5, 100, 20}) ASSERT_TRUE(Save(step).ok());
  ASSERT_TRUE(fs_.CreateDirectories("/run/checkpoints/step_7").ok());
  ASSERT_TRUE(fs_.CreateDirectories("/run/checkpoints/notes").ok());
  EXPECT_THAT(*ListCheckpoints(fs_, "/run"), ElementsAre(100, 20, 5));
  EXPECT_EQ(LatestStep(), 100);
  Damage(JoinPath(CheckpointPath("/run", 100), "state.json"));
  EXPECT_EQ(LatestStep(), 20);
  Damage(JoinPath(CheckpointPath("/run", 20), "checksums"));
  EXPECT_EQ(LatestStep(), 5);
  Damage(JoinPath(CheckpointPath("/run", 5), "model.safetensors"));
  EXPECT_THAT(OpenLatestCheckpoint(fs_, "/run").status().message(),
              HasSubstr("step_000000100: damaged: state.json"));
  ASSERT_TRUE(Save(20).ok());
  EXPECT_EQ(LatestStep(), 20);
}

TEST_F(Checkpoints, PruningKeepsTheNewestAndNeverTheLastGoodOne) {
  for (const int64_t step : {1, 2, 3, 4}) ASSERT_TRUE(Save(step).ok());
  ASSERT_TRUE(fs_.CreateDirectories("/run/checkpoints/.tmp-step_000000009/x").ok());
  ASSERT_TRUE(PruneCheckpoints(fs_, "/run", 3).ok());
  EXPECT_THAT(*fs_.ListDirectory("/run/checkpoints"),
              ElementsAre("step_000000002", "step_000000003", "step_000000004"));
  Damage(JoinPath(CheckpointPath("/run", 4), "state.json"));
  Damage(JoinPath(CheckpointPath("/run", 3), "state.json"));
  ASSERT_TRUE(PruneCheckpoints(fs_, "/run", 1).ok());
  EXPECT_EQ(LatestStep(), 2);
  ASSERT_TRUE(Save(5).ok());
  ASSERT_TRUE(PruneCheckpoints(fs_, "/run", 1).ok());
  EXPECT_THAT(*ListCheckpoints(fs_, "/run"), ElementsAre(5));
  EXPECT_TRUE(PruneCheckpoints(fs_, "/empty", 1).ok());
}

// What a run does every few steps.
absl::Status SaveBestAndPrune(FileSystem& fs, int64_t step) {
  RETURN_IF_ERROR(SaveCheckpoint(fs, CheckpointPath("/run", step), ContentsOf(step)));
  RETURN_IF_ERROR(SaveCheckpoint(fs, BestPath("/run"), ContentsOf(step)));
  return PruneCheckpoints(fs, "/run", 1);
}

TEST_F(Checkpoints, WhateverFailsACheckpointAndABestOneStay) {
  // 0: one operation fails, 1: the program dies, 2 and 3: so does the power.
  for (int variant = 0; variant < 4; ++variant) {
    bool finished = false;
    for (int64_t position = 0; !finished; ++position) {
      fs_ = FaultyFileSystem();
      SetUp();
      ASSERT_TRUE(SaveBestAndPrune(fs_, 1).ok());
      if (variant == 0) fs_.FailAt(position, absl::FailedPreconditionError("disk full"));
      if (variant > 0) fs_.DieAt(position);
      const int64_t before = fs_.num_operations();
      const bool saved = SaveBestAndPrune(fs_, 2).ok();
      finished = fs_.num_operations() - before <= position;
      fs_.FailNever();
      if (variant == 2) fs_.PowerLoss(FaultyFileSystem::Entries::kSyncedOnly);
      if (variant == 3) fs_.PowerLoss(FaultyFileSystem::Entries::kAll);
      const int64_t latest = LatestStep(), best = BestStep();
      ASSERT_TRUE(latest == 2 || (latest == 1 && !saved))
          << variant << " " << position << ": " << latest;
      ASSERT_TRUE(best == 2 || (best == 1 && !saved)) << variant << " " << position << ": " << best;
      ASSERT_TRUE(SaveBestAndPrune(fs_, 3).ok()) << variant << " " << position;
      EXPECT_THAT(*fs_.ListDirectory("/run/checkpoints"), ElementsAre("step_000000003"));
      EXPECT_THAT(*fs_.ListDirectory("/run"), ElementsAre("best", "checkpoints"));
      EXPECT_EQ(LatestStep() + BestStep(), 6);
    }
  }
}

}  // namespace
}  // namespace tessera::train
