#include "data/loader.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <thread>

#include "data/sampler.h"
#include "tests/data/data_testing.h"

namespace tessera {
namespace {

constexpr int64_t kTrain = 23;
constexpr int64_t kVal = 11;

TEST(EpochPermutation, HoldsEveryIndexOnceAndDiffersByEpochAndSeed) {
  for (const int64_t n : {0, 1, 2, 1000}) {
    std::vector<int32_t> order = EpochPermutation(n, 5, 2);
    std::sort(order.begin(), order.end());
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(order[i], i);
  }
  EXPECT_NE(EpochPermutation(1000, 5, 2), EpochPermutation(1000, 5, 3));
  EXPECT_NE(EpochPermutation(1000, 5, 2), EpochPermutation(1000, 6, 2));
  EXPECT_EQ(EpochPermutation(1000, 5, 2), EpochPermutation(1000, 5, 2));
}

TEST(EpochOrder, SamplesThatFillUpAreTellableFromTheirFirstTime) {
  std::set<std::pair<int64_t, int64_t>> seen;
  for (int64_t rank = 0; rank < 4; ++rank) {
    const EpochOrder order = EpochOrder::Training({2, 0, 1, 4, 3}, 1, rank, 4);
    ASSERT_EQ(order.size(), 2);
    for (int64_t i = 0; i < 2; ++i) seen.insert({order.at(i).index, order.at(i).repeat});
  }
  EXPECT_EQ(seen.size(), 8u);
}

class LoaderTest : public testing::Test {
 protected:
  LoaderTest() {
    WriteClassFolders(folder_, kTrain, kVal);
    config_.root = folder_.path();
    config_.image_size = 24;
    config_.auto_augment = "rand-m9-mstd0.5-inc1";
    config_.reprob = 0.5;
    config_.mixup = 0.8;
    config_.cutmix = 1.0;
    config_.workers = 2;
  }

  std::unique_ptr<ImageSource> Open(Split split) const {
    return Unwrap(OpenSource(config_, split));
  }

  TempFolder folder_;
  DataConfig config_;
};

// A copy of a batch's contents that can be compared.
struct BatchCopy {
  std::vector<float> images;
  std::vector<float> targets;
  std::vector<int64_t> labels;
  std::vector<int64_t> samples;
  int64_t epoch;
  int64_t index;
  int64_t num_valid;

  friend bool operator==(const BatchCopy&, const BatchCopy&) = default;
};

template <typename T>
std::vector<T> Values(const Tensor& t) {
  if (!t.defined()) return {};
  return std::vector<T>(t.data<T>(), t.data<T>() + t.numel());
}

std::vector<BatchCopy> ReadAll(Loader& loader) {
  std::vector<BatchCopy> result;
  while (true) {
    const std::optional<Batch> b = Unwrap(loader.Next());
    if (!b.has_value()) return result;
    result.push_back({Values<float>(b->images), Values<float>(b->targets),
                      Values<int64_t>(b->labels), Values<int64_t>(b->samples), b->epoch, b->index,
                      b->num_valid});
  }
}

std::vector<BatchCopy> ReadAll(const DataConfig& config, const ImageSource& source,
                               const LoaderOptions& options) {
  return ReadAll(*Unwrap(Loader::Create(config, source, options)));
}

TEST_F(LoaderTest, AnyNumberOfWorkersGivesTheSameBytes) {
  const auto source = Open(Split::kTrain);
  for (const std::string mode : {"batch", "pair", "elem"}) {
    config_.mixup_mode = mode;
    const LoaderOptions options{.training = true, .batch_size = 4, .seed = 7, .epochs = 2};
    config_.workers = 0;
    const auto expected = ReadAll(config_, *source, options);
    EXPECT_EQ(expected.size(), 2 * (kTrain / 4));
    for (const int64_t workers : {1, 4}) {
      config_.workers = workers;
      config_.cache_mb = workers == 1 ? 0 : 16;
      EXPECT_TRUE(ReadAll(config_, *source, options) == expected) << workers << " " << mode;
    }
  }
}

TEST_F(LoaderTest, ResumingInsideAnEpochContinuesExactly) {
  const auto source = Open(Split::kTrain);
  LoaderOptions options{.training = true, .batch_size = 4, .seed = 7, .epochs = 3};
  const auto all = ReadAll(config_, *source, options);
  for (const auto& [epoch, batch] : {std::pair{0, 3}, {1, 0}, {1, 4}, {0, 5}}) {
    options.start_epoch = epoch;
    options.start_batch = batch;
    const std::vector<BatchCopy> rest(all.begin() + epoch * (kTrain / 4) + batch, all.end());
    EXPECT_TRUE(ReadAll(config_, *source, options) == rest) << epoch << ", " << batch;
  }
}

TEST_F(LoaderTest, AnEpochHoldsEverySampleAtMostOnceInAnOrderOfItsOwn) {
  const auto source = Open(Split::kTrain);
  const auto batches =
      ReadAll(config_, *source, {.training = true, .batch_size = 2, .seed = 1, .epochs = 2});
  std::vector<int64_t> order[2];
  for (const BatchCopy& b : batches) {
    order[b.epoch].insert(order[b.epoch].end(), b.samples.begin(), b.samples.end());
  }
  for (const auto& samples : order) {
    EXPECT_EQ(std::set<int64_t>(samples.begin(), samples.end()).size(), kTrain / 2 * 2);
    EXPECT_FALSE(std::is_sorted(samples.begin(), samples.end()));
  }
  EXPECT_NE(order[0], order[1]);
}

TEST_F(LoaderTest, TargetsOfARowSumToOne) {
  const auto source = Open(Split::kTrain);
  const auto batches =
      ReadAll(config_, *source, {.training = true, .batch_size = 4, .num_classes = 5});
  for (const BatchCopy& b : batches) {
    for (size_t row = 0; row < 4; ++row) {
      float sum = 0;
      for (size_t c = 0; c < 5; ++c) sum += b.targets[row * 5 + c];
      EXPECT_NEAR(sum, 1.0f, 1e-6);
      EXPECT_EQ(b.labels[row], source->label(b.samples[row]));
    }
  }
}

TEST_F(LoaderTest, NoMixingFromTheConfiguredEpochOn) {
  const auto source = Open(Split::kTrain);
  config_.mixup_off_epoch = 1;
  config_.label_smoothing = 0;
  for (const BatchCopy& b :
       ReadAll(config_, *source, {.training = true, .batch_size = 4, .epochs = 2})) {
    const bool one_hot = std::all_of(b.targets.begin(), b.targets.end(),
                                     [](float t) { return t == 0.0f || t == 1.0f; });
    if (b.epoch == 1) {
      EXPECT_TRUE(one_hot);
    }
  }
}

TEST_F(LoaderTest, EvaluationCountsEverySampleOnceOverAllRanks) {
  const auto source = Open(Split::kVal);
  for (const int64_t world : {1, 2, 4}) {
    std::multiset<int64_t> seen;
    for (int64_t rank = 0; rank < world; ++rank) {
      const auto batches =
          ReadAll(config_, *source, {.batch_size = 3, .rank = rank, .world = world});
      EXPECT_EQ(batches.size(), ((kVal + world - 1) / world + 2) / 3);
      for (const BatchCopy& b : batches) {
        EXPECT_TRUE(b.targets.empty());
        for (int64_t row = 0; row < 3; ++row) {
          EXPECT_EQ(b.samples[row] >= 0, row < b.num_valid);
          if (row < b.num_valid) seen.insert(b.samples[row]);
          EXPECT_EQ(b.labels[row], row < b.num_valid ? source->label(b.samples[row]) : -1);
        }
      }
    }
    EXPECT_EQ(seen.size(), kVal);
    EXPECT_EQ(std::set<int64_t>(seen.begin(), seen.end()).size(), kVal);
  }
}

TEST_F(LoaderTest, RanksTakeDifferentSamplesOfOneOrder) {
  const auto source = Open(Split::kTrain);
  const auto whole = ReadAll(config_, *source, {.training = true, .batch_size = 4, .seed = 3});
  for (int64_t rank = 0; rank < 2; ++rank) {
    const auto part = ReadAll(
        config_, *source, {.training = true, .batch_size = 2, .seed = 3, .rank = rank, .world = 2});
    for (size_t b = 0; b < whole.size(); ++b) {
      for (int64_t row = 0; row < 2; ++row) {
        EXPECT_EQ(part[b].samples[row], whole[b].samples[2 * row + rank]);
      }
    }
  }
}

TEST_F(LoaderTest, RepeatedAugmentationShowsSamplesSeveralTimesAugmentedDifferently) {
  const auto source = Open(Split::kTrain);
  config_.repeated_aug = 3;
  config_.mixup = config_.cutmix = 0;
  const auto batches = ReadAll(config_, *source, {.training = true, .batch_size = 3});
  ASSERT_EQ(batches.size(), kTrain / 3);
  const BatchCopy& b = batches.front();
  EXPECT_EQ(b.samples[0], b.samples[1]);
  EXPECT_EQ(b.samples[0], b.samples[2]);
  const size_t row = b.images.size() / 3;
  EXPECT_FALSE(std::equal(b.images.begin(), b.images.begin() + row, b.images.begin() + row));
}

TEST_F(LoaderTest, ABadFileInTrainingIsReplacedAndNamed) {
  folder_.Write("train/ant/0.jpg", "no picture at all");
  folder_.Write("train/bee/1.jpg", "");
  const auto source = Open(Split::kTrain);
  std::vector<BatchCopy> first;
  for (const int64_t workers : {1, 4}) {
    config_.workers = workers;
    const auto loader =
        Unwrap(Loader::Create(config_, *source, {.training = true, .batch_size = 2, .epochs = 2}));
    const auto batches = ReadAll(*loader);
    EXPECT_EQ(batches.size(), 2 * (kTrain / 2));
    EXPECT_GE(loader->stats().num_bad(), 2);
    EXPECT_GE(loader->stats().bad[static_cast<int>(BadFile::kEmpty)], 1);
    ASSERT_FALSE(loader->stats().first_bad.empty());
    EXPECT_NE(loader->stats().first_bad[0].find(folder_.path()), std::string::npos);
    for (const BatchCopy& b : batches) {
      EXPECT_TRUE(std::none_of(b.samples.begin(), b.samples.end(), [&](int64_t s) {
        const std::string name = source->name(s);
        return name == folder_ / "train/ant/0.jpg" || name == folder_ / "train/bee/1.jpg";
      }));
    }
    if (workers == 1) first = batches;
    EXPECT_TRUE(batches == first);
  }
}

TEST_F(LoaderTest, TooManyBadFilesStopTraining) {
  for (int i = 0; i < 12; ++i) {
    folder_.Write(absl::StrCat("train/",
                               i % 3 == 0   ? "ant"
                               : i % 3 == 1 ? "bee"
                                            : "cat",
                               "/", i, ".jpg"),
                  "bad");
  }
  const auto source = Open(Split::kTrain);
  const auto loader =
      Unwrap(Loader::Create(config_, *source, {.training = true, .batch_size = 2, .epochs = 2}));
  absl::Status status;
  while (status.ok()) status = loader->Next().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find(".jpg: unrecognised"), std::string::npos) << status;
  EXPECT_EQ(loader->Next().status(), status);
}

TEST_F(LoaderTest, OnlyBadFilesStopTrainingAtOnce) {
  for (int i = 0; i < kTrain; ++i) {
    const char* classes[] = {"ant", "bee", "cat"};
    folder_.Write(absl::StrCat("train/", classes[i % 3], "/", i, ".jpg"), "bad");
  }
  const auto source = Open(Split::kTrain);
  EXPECT_FALSE(
      Unwrap(Loader::Create(config_, *source, {.training = true, .batch_size = 2}))->Next().ok());
}

TEST_F(LoaderTest, ABadFileInEvaluationIsAnErrorUnlessLeftOut) {
  const std::string bad = Open(Split::kVal)->name(4);
  const std::string contents = Unwrap(PosixFileSystem().ReadFile(bad));
  folder_.Write(bad, contents.substr(0, contents.size() / 2));
  const auto source = Open(Split::kVal);
  const auto strict = Unwrap(Loader::Create(config_, *source, {.batch_size = 4}));
  absl::Status status = strict->Next().status();
  if (status.ok()) status = strict->Next().status();
  EXPECT_NE(status.message().find(bad), std::string::npos) << status;

  config_.skip_bad = true;
  const auto loader = Unwrap(Loader::Create(config_, *source, {.batch_size = 4}));
  std::set<int64_t> seen;
  for (const BatchCopy& b : ReadAll(*loader)) {
    for (int64_t row = 0; row < 4; ++row) {
      EXPECT_EQ(b.samples[row] >= 0, row < b.num_valid);
      if (row < b.num_valid) seen.insert(b.samples[row]);
    }
  }
  EXPECT_EQ(seen.size(), kVal - 1);
  EXPECT_FALSE(seen.contains(4));
  EXPECT_EQ(loader->stats().num_bad(), 1);
}

TEST_F(LoaderTest, CanBeDestroyedAtAnyTime) {
  const auto source = Open(Split::kTrain);
  config_.workers = 4;
  for (int batches = 0; batches < 4; ++batches) {
    const auto loader =
        Unwrap(Loader::Create(config_, *source, {.training = true, .batch_size = 8, .epochs = 9}));
    for (int i = 0; i < batches; ++i) EXPECT_TRUE(Unwrap(loader->Next()).has_value());
  }
}

TEST_F(LoaderTest, ABatchThatIsKeptIsNotOverwritten) {
  const auto source = Open(Split::kTrain);
  const auto loader =
      Unwrap(Loader::Create(config_, *source, {.training = true, .batch_size = 2, .epochs = 2}));
  const std::optional<Batch> first = Unwrap(loader->Next());
  const std::vector<float> before = Values<float>(first->images);
  ReadAll(*loader);
  EXPECT_TRUE(Values<float>(first->images) == before);
}

TEST_F(LoaderTest, WrongSettingsAreErrors) {
  const auto source = Open(Split::kTrain);
  const auto message = [&](const LoaderOptions& options) {
    const auto loader = Loader::Create(config_, *source, options);
    return loader.ok() ? std::string("ok") : std::string(loader.status().message());
  };
  EXPECT_NE(message({.training = true, .batch_size = 3}).find("even"), std::string::npos);
  EXPECT_NE(message({.training = true, .batch_size = 64}).find("23 samples"), std::string::npos);
  EXPECT_NE(message({.training = true, .batch_size = 2, .start_batch = 12}).find("resume"),
            std::string::npos);
  EXPECT_NE(message({.training = true, .batch_size = 2, .num_classes = 2}).find("2 classes"),
            std::string::npos);
  config_.auto_augment = "rand-x9";
  EXPECT_NE(message({.training = true, .batch_size = 2}).find("x9"), std::string::npos);
}

}  // namespace
}  // namespace tessera
