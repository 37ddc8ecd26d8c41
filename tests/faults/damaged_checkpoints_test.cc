// Checkpoints with a bit that is flipped or an end that is missing.
#include <gtest/gtest.h>

#include "core/random.h"
#include "tests/core/faulty_file_system.h"
#include "tests/faults/faults.h"
#include "tests/train/train_testing.h"
#include "train/checkpoint.h"
#include "train/snapshot.h"

namespace tessera::train {
namespace {

class DamagedCheckpoints : public ::testing::Test {
 protected:
  DamagedCheckpoints() {
    FLAGS_minloglevel = google::GLOG_ERROR;
    const InTraining run = SmallDaViT();
    for (const int64_t step : {1, 2}) {
      TrainState state;
      state.model = "davit";
      state.step = state.updates = step;
      CHECK(SaveSnapshot(fs_, CheckpointPath("/run", step), state, "a: 1\n", *run.store,
                         *run.optimizer)
                .ok());
    }
    const std::vector<std::string> names = *fs_.ListDirectory(newest_);
    for (const std::string& name : names) {
      files_.emplace_back(JoinPath(newest_, name), *fs_.ReadFile(JoinPath(newest_, name)));
      bytes_ += static_cast<int64_t>(files_.back().second.size());
    }
  }

  // The file that holds byte number `byte` of all of them, and the place in it.
  std::pair<size_t, size_t> Find(int64_t byte) const {
    size_t file = 0;
    while (byte >= static_cast<int64_t>(files_[file].second.size())) {
      byte -= static_cast<int64_t>(files_[file++].second.size());
    }
    return {file, static_cast<size_t>(byte)};
  }
  // Puts `damaged` in the place of a file: it must be noticed, and the checkpoint before be taken.
  void ExpectNoticed(size_t file, const std::string& damaged) {
    const auto& [path, good] = files_[file];
    ASSERT_TRUE(WriteFileAtomically(fs_, path, damaged).ok());
    const absl::Status status = Checkpoint::Open(fs_, newest_).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kDataLoss) << path << ": " << status;
    const auto latest = OpenLatestCheckpoint(fs_, "/run");
    ASSERT_TRUE(latest.ok()) << latest.status();
    ASSERT_EQ(latest->state().step, 1);
    ASSERT_TRUE(WriteFileAtomically(fs_, path, good).ok());
  }

  FaultyFileSystem fs_;
  const std::string newest_ = CheckpointPath("/run", 2);
  std::vector<std::pair<std::string, std::string>> files_;
  int64_t bytes_ = 0;
  RandomStream random_{5, Purpose::kTest};
};

TEST_F(DamagedCheckpoints, AreNoticedByAnyFlippedBit) {
  const int64_t flips = faults::Cases(300, 10000);
  for (int64_t i = 0; i < flips; ++i) {
    // Half of them in the small files, where a bit has a meaning of its own.
    auto [file, at] = Find(random_.Integer(0, bytes_ - 1));
    if (i % 2 == 0) {
      file = static_cast<size_t>(random_.Integer(0, static_cast<int64_t>(files_.size()) - 1));
      const auto size = static_cast<int64_t>(files_[file].second.size());
      at = static_cast<size_t>(random_.Integer(0, std::min<int64_t>(size, 1000) - 1));
    }
    std::string damaged = files_[file].second;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random_.Integer(0, 7)));
    ExpectNoticed(file, damaged);
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(OpenLatestCheckpoint(fs_, "/run")->state().step, 2);
  faults::Report("one bit of a checkpoint flipped", flips,
                 "all noticed before a weight is read; the checkpoint before is taken");
}

TEST_F(DamagedCheckpoints, AreNoticedByAnyMissingEnd) {
  const int64_t cuts = faults::Cases(100, 1000);
  for (int64_t i = 0; i < cuts; ++i) {
    const auto file = static_cast<size_t>(i) % files_.size();
    const std::string& good = files_[file].second;
    const int64_t size = static_cast<int64_t>(good.size());
    const int64_t keep = i % 3 == 0 ? size - 1 - random_.Integer(0, std::min<int64_t>(size - 1, 8))
                                    : random_.Integer(0, size - 1);
    ExpectNoticed(file, good.substr(0, static_cast<size_t>(keep)));
    if (HasFatalFailure()) return;
  }
  faults::Report("a file of a checkpoint cut off", cuts,
                 "all noticed before a weight is read; the checkpoint before is taken");
}

}  // namespace
}  // namespace tessera::train
