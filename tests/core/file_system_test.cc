#include "core/file_system.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "core/check.h"
#include "tests/core/faulty_file_system.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class PosixFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "file_system_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  FileSystem& fs_ = PosixFileSystem();
  std::string dir_;
};

TEST(Paths, AreJoinedAndSplit) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
  EXPECT_EQ(JoinPath("a", "/b"), "/b");
  EXPECT_EQ(DirectoryName("a/b/c"), "a/b");
  EXPECT_EQ(DirectoryName("a//b//"), "a");
  EXPECT_EQ(DirectoryName("c"), ".");
  EXPECT_EQ(DirectoryName("/c"), "/");
  EXPECT_EQ(BaseName("a/b/c"), "c");
  EXPECT_EQ(BaseName("a/b/"), "b");
}

TEST_F(PosixFiles, ReadBackWhatWasWrittenAndAppended) {
  const std::string path = JoinPath(dir_, "a");
  ASSERT_TRUE(WriteFileAtomically(fs_, path, std::string("x\0y", 3)).ok());
  auto file = fs_.OpenWritable(path, WriteMode::kAppend);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE((*file)->Append("z").ok());
  ASSERT_TRUE((*file)->Close().ok());
  EXPECT_EQ(*fs_.ReadFile(path), std::string("x\0yz", 4));
  EXPECT_THAT(*fs_.ListDirectory(dir_), ElementsAre("a"));
  EXPECT_EQ(fs_.Stat(path)->bytes, 4);
  EXPECT_FALSE(fs_.Stat(path)->is_directory);
}

TEST_F(PosixFiles, ReadPartOfAFileAndRefuseToReadBeyondItsEnd) {
  const std::string path = JoinPath(dir_, "a");
  ASSERT_TRUE(WriteFileAtomically(fs_, path, "0123456789").ok());
  auto file = fs_.OpenReadable(path);
  ASSERT_TRUE(file.ok());
  char part[3];
  ASSERT_TRUE((*file)->ReadAt(4, 3, part).ok());
  EXPECT_EQ(std::string(part, 3), "456");
  const absl::Status beyond = (*file)->ReadAt(8, 3, part);
  EXPECT_EQ(beyond.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(beyond.message()), HasSubstr("ends at byte 10, expected 1 more"));
}

TEST_F(PosixFiles, ErrorsNameThePathAndTheReason) {
  const absl::Status missing = fs_.ReadFile(JoinPath(dir_, "none")).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(missing.message(), dir_ + "/none: cannot open: No such file or directory");
  EXPECT_THAT(std::string(fs_.ReadFile(dir_).status().message()),
              HasSubstr("expected a file, found a directory"));
  EXPECT_THAT(std::string(fs_.ReadFile("").status().message()), HasSubstr("empty path"));
  EXPECT_FALSE(fs_.ReadFile(dir_ + std::string("/a\0b", 4)).ok());
  EXPECT_EQ(fs_.Remove(JoinPath(dir_, "none")).code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteFileAtomically(fs_, JoinPath(dir_, "large"), "12345").ok());
  EXPECT_THAT(std::string(fs_.ReadFile(JoinPath(dir_, "large"), 4).status().message()),
              HasSubstr("5 bytes, at most 4 are allowed"));
}

TEST_F(PosixFiles, AFullDiskIsNamedAsSuch) {
  auto file = fs_.OpenWritable("/dev/full");
  if (!file.ok()) GTEST_SKIP() << "no /dev/full on this system";
  const absl::Status full = (*file)->Append("x");
  EXPECT_EQ(full.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(full.message()), HasSubstr("No space left on device; free some space"));
}

TEST_F(PosixFiles, APipeIsRefusedInsteadOfWaitedFor) {
  const std::string path = JoinPath(dir_, "pipe");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_THAT(std::string(fs_.ReadFile(path).status().message()), HasSubstr("no regular file"));
}

TEST_F(PosixFiles, ADirectoryIsLockedOnceAndFreedWithTheLock) {
  auto first = fs_.LockDirectory(dir_);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(fs_.LockDirectory(dir_).status().code(), absl::StatusCode::kAlreadyExists);
  first->reset();
  EXPECT_TRUE(fs_.LockDirectory(dir_).ok());
}

TEST_F(PosixFiles, TreesAreCreatedAndRemovedWithoutFollowingLinks) {
  const std::string deep = JoinPath(dir_, "a/b/c");
  ASSERT_TRUE(fs_.CreateDirectories(deep).ok());
  ASSERT_TRUE(WriteFileAtomically(fs_, JoinPath(dir_, "keep"), "x").ok());
  ASSERT_EQ(symlink(dir_.c_str(), JoinPath(deep, "link").c_str()), 0);
  ASSERT_TRUE(fs_.RemoveTree(JoinPath(dir_, "a")).ok());
  EXPECT_TRUE(fs_.RemoveTree(JoinPath(dir_, "a")).ok());
  EXPECT_THAT(*fs_.ListDirectory(dir_), ElementsAre("keep"));
}

TEST_F(PosixFiles, ADirectoryIsPublishedWholeAndNeverOverAnother) {
  const std::string path = JoinPath(dir_, "step-1");
  {
    auto abandoned = AtomicDirectory::Create(fs_, path);
    ASSERT_TRUE(abandoned.ok());
    ASSERT_TRUE(abandoned->WriteFile("a", "old").ok());
  }
  EXPECT_THAT(*fs_.ListDirectory(dir_), ElementsAre());
  auto directory = AtomicDirectory::Create(fs_, path);
  ASSERT_TRUE(directory.ok());
  ASSERT_TRUE(directory->WriteFile("a", "1").ok());
  ASSERT_TRUE(directory->WriteFile("b", "2").ok());
  ASSERT_TRUE(directory->Publish().ok());
  EXPECT_THAT(*fs_.ListDirectory(path), ElementsAre("a", "b"));
  auto again = AtomicDirectory::Create(fs_, path);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->Publish().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(*fs_.ReadFile(JoinPath(path, "b")), "2");
}

// A directory with a synced file "/run/file" that holds "old".
void MakeOldFile(FaultyFileSystem* fs) {
  ASSERT_TRUE(fs->CreateDirectories("/run").ok());
  ASSERT_TRUE(fs->SyncDirectory("/").ok());
  ASSERT_TRUE(WriteFileAtomically(*fs, "/run/file", "old").ok());
}

constexpr FaultyFileSystem::Entries kSurvivors[] = {FaultyFileSystem::Entries::kSyncedOnly,
                                                    FaultyFileSystem::Entries::kAll};

TEST(AtomicFile, KeepsTheOldContentsWhicheverOperationFails) {
  bool failed = true;
  int64_t position = 0;
  for (; failed; ++position) {
    FaultyFileSystem fs;
    MakeOldFile(&fs);
    fs.FailAt(position, absl::FailedPreconditionError("disk full"));
    failed = !WriteFileAtomically(fs, "/run/file", "new").ok();
    fs.FailNever();
    const std::string contents = *fs.ReadFile("/run/file");
    EXPECT_TRUE(contents == "new" || (failed && contents == "old")) << position << contents;
    EXPECT_THAT(*fs.ListDirectory("/run"), ElementsAre("file")) << position;
  }
  EXPECT_EQ(position, 7) << "open, append, sync, close, rename, sync directory, then none fails";
}

TEST(AtomicFile, LeavesOldOrNewContentsAfterPowerLossAtAnyOperation) {
  for (const auto survivors : kSurvivors) {
    for (int64_t position = 0; position < 7; ++position) {
      FaultyFileSystem fs;
      MakeOldFile(&fs);
      fs.FailAt(position, absl::UnknownError("power"));
      const bool committed = WriteFileAtomically(fs, "/run/file", "new").ok();
      fs.PowerLoss(survivors);
      const std::string contents = *fs.ReadFile("/run/file");
      EXPECT_TRUE(contents == "new" || (!committed && contents == "old")) << position << contents;
    }
  }
}

absl::Status PublishTwoFiles(FileSystem& fs) {
  ASSIGN_OR_RETURN(AtomicDirectory directory, AtomicDirectory::Create(fs, "/run/step-2"));
  RETURN_IF_ERROR(directory.WriteFile("a", "alpha"));
  RETURN_IF_ERROR(directory.WriteFile("b", "beta"));
  return directory.Publish();
}

TEST(AtomicDirectory, IsCompleteOrAbsentWhicheverOperationFails) {
  bool failed = true;
  int64_t position = 0;
  for (; failed; ++position) {
    FaultyFileSystem fs;
    MakeOldFile(&fs);
    fs.FailAt(position, absl::FailedPreconditionError("disk full"));
    failed = !PublishTwoFiles(fs).ok();
    fs.FailNever();
    EXPECT_EQ(*fs.ReadFile("/run/file"), "old");
    EXPECT_FALSE(fs.Exists("/run/.tmp-step-2")) << position;
    EXPECT_TRUE(failed || fs.Exists("/run/step-2"));
    if (fs.Exists("/run/step-2")) {
      EXPECT_EQ(*fs.ReadFile("/run/step-2/a"), "alpha");
      EXPECT_EQ(*fs.ReadFile("/run/step-2/b"), "beta");
    }
  }
  EXPECT_EQ(position, 14);
}

TEST(AtomicDirectory, IsCompleteOrAbsentAfterPowerLossAtAnyOperation) {
  for (const auto survivors : kSurvivors) {
    for (int64_t position = 0; position < 14; ++position) {
      FaultyFileSystem fs;
      MakeOldFile(&fs);
      fs.FailAt(position, absl::UnknownError("power"));
      const bool published = PublishTwoFiles(fs).ok();
      fs.PowerLoss(survivors);
      EXPECT_EQ(*fs.ReadFile("/run/file"), "old");
      EXPECT_TRUE(!published || fs.Exists("/run/step-2"));
      if (!fs.Exists("/run/step-2")) continue;
      EXPECT_EQ(*fs.ReadFile("/run/step-2/a"), "alpha") << position;
      EXPECT_EQ(*fs.ReadFile("/run/step-2/b"), "beta") << position;
    }
  }
}

TEST(AtomicDirectory, RemovesWhatADeadRunLeft) {
  FaultyFileSystem fs;
  ASSERT_TRUE(fs.CreateDirectories("/run/.tmp-step-2").ok());
  ASSERT_TRUE(WriteFileAtomically(fs, "/run/.tmp-step-2/left", "x").ok());
  ASSERT_TRUE(PublishTwoFiles(fs).ok());
  EXPECT_THAT(*fs.ListDirectory("/run/step-2"), ElementsAre("a", "b"));
}

absl::Status ReplaceBest(FileSystem& fs, absl::string_view contents) {
  ASSIGN_OR_RETURN(AtomicDirectory directory, AtomicDirectory::Create(fs, "/run/best"));
  RETURN_IF_ERROR(directory.WriteFile("a", contents));
  return directory.Replace();
}

std::string ReadBest(FileSystem& fs) {
  return fs.ReadFile(JoinPath(ResolveReplaced(fs, "/run/best"), "a")).value_or("nothing");
}

TEST(AtomicDirectory, ReplacesAndLeavesNothingElse) {
  FaultyFileSystem fs;
  MakeOldFile(&fs);
  for (const char* contents : {"1", "2", "3"}) {
    ASSERT_TRUE(ReplaceBest(fs, contents).ok());
    EXPECT_EQ(ReadBest(fs), contents);
    EXPECT_THAT(*fs.ListDirectory("/run"), ElementsAre("best", "file"));
  }
}

TEST(AtomicDirectory, SomeCompleteDirectoryIsReadAfterDeathOrPowerLossAtAnyTwoReplacements) {
  constexpr int kNumOperations = 13;
  FLAGS_minloglevel = google::GLOG_ERROR;  // leftovers are warned about
  for (int variant = 0; variant < 4; ++variant) {
    for (int first = 0; first < kNumOperations; ++first) {
      for (int second = 0; second < kNumOperations; ++second) {
        FaultyFileSystem fs;
        MakeOldFile(&fs);
        ASSERT_TRUE(ReplaceBest(fs, "old").ok());
        std::string newest = "old";
        for (const auto& [position, contents] :
             {std::pair(first, "new"), std::pair(second, "newer")}) {
          if (variant & 1) fs.DieAt(position);
          if (!(variant & 1)) fs.FailAt(position, absl::FailedPreconditionError("disk full"));
          if (ReplaceBest(fs, contents).ok()) newest = contents;
          fs.FailNever();
          if (variant & 2) fs.PowerLoss(FaultyFileSystem::Entries::kSyncedOnly);
          const std::string read = ReadBest(fs);
          ASSERT_TRUE(read == newest || read == contents)
              << variant << " " << first << " " << second << ": " << read << ", not " << newest;
          newest = read;
        }
      }
    }
  }
}

}  // namespace
}  // namespace tessera
