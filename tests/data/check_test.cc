#include "data/check.h"

#include <gmock/gmock.h>

#include "tests/data/data_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;

class CheckTest : public testing::Test {
 protected:
  CheckTest() {
    WriteClassFolders(folder_, 12, 6);
    config_.root = folder_.path();
  }
  DataReport Check() const { return CheckData(config_, {Split::kTrain, Split::kVal}); }

  TempFolder folder_;
  DataConfig config_;
};

TEST_F(CheckTest, GoodDataIsOkAndCounted) {
  const DataReport report = Check();
  EXPECT_TRUE(report.ok()) << report.Text();
  ASSERT_EQ(report.splits.size(), 2u);
  EXPECT_EQ(report.splits[0].num_samples, 12);
  EXPECT_THAT(report.splits[0].samples_per_class, testing::ElementsAre(4, 4, 4));
  EXPECT_EQ(report.splits[0].min_height, 40);
  EXPECT_EQ(report.splits[0].max_height, 46);
  EXPECT_EQ(report.splits[0].min_width, 50);
  EXPECT_EQ(report.splits[0].max_width, 54);
  EXPECT_TRUE(report.splits[0].duplicates.empty());
  EXPECT_EQ(report.num_shared, 0);
  EXPECT_THAT(report.Text(), HasSubstr("ant 4, bee 4, cat 4"));
}

TEST_F(CheckTest, EveryBadFileIsNamedWithItsKind) {
  const std::string whole = EncodedPicture(40, 50, 0);
  folder_.Write("train/ant/0.jpg", "");
  folder_.Write("train/ant/3.jpg", whole.substr(0, whole.size() / 2));
  folder_.Write("train/bee/1.jpg", "some text");
  const DataReport report = Check();
  EXPECT_FALSE(report.ok());
  const std::vector<BadPicture>& bad = report.splits[0].bad;
  ASSERT_EQ(bad.size(), 3u);
  EXPECT_EQ(bad[0].kind, BadFile::kEmpty);
  EXPECT_EQ(bad[1].kind, BadFile::kTruncated);
  EXPECT_EQ(bad[2].kind, BadFile::kUnrecognised);
  for (const char* name : {"train/ant/0.jpg", "train/ant/3.jpg", "train/bee/1.jpg"}) {
    EXPECT_THAT(report.Text(), HasSubstr(folder_ / name));
  }
}

TEST_F(CheckTest, DuplicatesInsideAndAcrossSplitsAreCounted) {
  folder_.Write("train/cat/copy.jpg", EncodedPicture(40, 50, 0));
  folder_.Write("val/cat/copy.jpg", EncodedPicture(40, 50, 0));
  const DataReport report = Check();
  EXPECT_TRUE(report.ok());
  ASSERT_EQ(report.splits[0].duplicates.size(), 1u);
  EXPECT_EQ(report.splits[0].duplicates[0].first, folder_ / "train/ant/0.jpg");
  EXPECT_EQ(report.splits[0].duplicates[0].second, folder_ / "train/cat/copy.jpg");
  EXPECT_EQ(report.num_shared, 1);
}

TEST_F(CheckTest, DifferentClassesAndAMissingSplitAreErrors) {
  folder_.Write("val/dog/1.jpg", EncodedPicture(9, 9, 77));
  EXPECT_THAT(Check().class_mismatch, HasSubstr("dog"));
  EXPECT_FALSE(Check().ok());
  config_.val_split = "nowhere";
  const DataReport report = Check();
  EXPECT_FALSE(report.ok());
  EXPECT_TRUE(report.splits[0].error.empty());
  EXPECT_THAT(report.splits[1].error, HasSubstr("nowhere"));
}

TEST_F(CheckTest, BadLinesOfALabelFileAreAllNamed) {
  folder_.Write("train.txt", "ant/0.jpg\t0\nant/3.jpg\tx\nbee/1.jpg 1\ncat\n");
  config_.labels = "train.txt";
  const DataReport report = CheckData(config_, {Split::kTrain});
  EXPECT_FALSE(report.ok());
  EXPECT_THAT(report.Text(), HasSubstr("train.txt:2: found 'x'"));
  EXPECT_THAT(report.Text(), HasSubstr("train.txt:4: found 'cat'"));
}

TEST_F(CheckTest, ProgressReachesTheEnd) {
  int64_t last = 0;
  CheckData(config_, {Split::kTrain}, [&last](int64_t done, int64_t total) {
    EXPECT_GT(done, last);
    EXPECT_EQ(total, 12);
    last = done;
  });
  EXPECT_EQ(last, 12);
}

}  // namespace
}  // namespace tessera
