#include "train/run_log.h"

#include <gmock/gmock.h>
#include <google/protobuf/unknown_field_set.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "core/check.h"
#include "core/json.h"
#include "tests/core/faulty_file_system.h"
#include "train/tensorboard.h"

namespace tessera::train {
namespace {

using ::google::protobuf::UnknownField;
using ::google::protobuf::UnknownFieldSet;
using ::testing::ElementsAre;

// The only field with this number.
const UnknownField& FieldOf(const UnknownFieldSet& message, int number) {
  const UnknownField* found = nullptr;
  for (int i = 0; i < message.field_count(); ++i) {
    if (message.field(i).number() != number) continue;
    CHECK(found == nullptr) << "field " << number << " twice";
    found = &message.field(i);
  }
  CHECK(found != nullptr) << "no field " << number;
  return *found;
}

std::unique_ptr<UnknownFieldSet> Parse(const std::string& bytes) {
  auto message = std::make_unique<UnknownFieldSet>();
  CHECK(message->ParseFromString(bytes));
  return message;
}

// The events of a file, with sizes and sums checked by the rules of the format.
std::vector<std::unique_ptr<UnknownFieldSet>> ReadEvents(absl::string_view bytes) {
  std::vector<std::unique_ptr<UnknownFieldSet>> events;
  while (!bytes.empty()) {
    uint64_t size = 0;
    uint32_t size_crc = 0, data_crc = 0;
    CHECK_GE(bytes.size(), 16u);
    std::memcpy(&size, bytes.data(), 8);
    std::memcpy(&size_crc, bytes.data() + 8, 4);
    CHECK_LE(size + 16, bytes.size());
    std::memcpy(&data_crc, bytes.data() + 12 + size, 4);
    EXPECT_EQ(size_crc, MaskedCrc32c(bytes.substr(0, 8)));
    EXPECT_EQ(data_crc, MaskedCrc32c(bytes.substr(12, size)));
    events.push_back(Parse(std::string(bytes.substr(12, size))));
    bytes.remove_prefix(size + 16);
  }
  return events;
}

double WallTime(const UnknownFieldSet& event) {
  return std::bit_cast<double>(FieldOf(event, 1).fixed64());
}

TEST(TensorBoard, SumsAreTheMaskedCastagnoliOnes) {
  // Check value of CRC-32C: E3069283 for "123456789".
  EXPECT_EQ(MaskedCrc32c("123456789"), ((0xE3069283u >> 15) | (0xE3069283u << 17)) + 0xA282EAD8u);
  EXPECT_EQ(MaskedCrc32c(std::string(32, '\0')),
            ((0x8A9136AAu >> 15) | (0x8A9136AAu << 17)) + 0xA282EAD8u);
}

TEST(TensorBoard, FilesDecodeToWhatWasWritten) {
  FaultyFileSystem fs;
  ASSERT_TRUE(fs.CreateDirectories("/tb").ok());
  const absl::Time now = absl::FromUnixMillis(1700000000250);
  auto writer = TensorBoardWriter::Create(fs, "/tb", 301, now);
  ASSERT_TRUE(writer.ok());
  const std::vector<Scalar> scalars = {{"train/loss", 2.5}, {"train/lr", 1e-3}};
  ASSERT_TRUE(writer->Write(302, now + absl::Seconds(1), scalars).ok());
  const auto names = *fs.ListDirectory("/tb");
  ASSERT_EQ(names.size(), 1u);
  EXPECT_TRUE(absl::StartsWith(names[0], "events.out.tfevents.1700000000."));
  const auto events = ReadEvents(*fs.ReadFile("/tb/" + names[0]));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_NEAR(WallTime(*events[0]), 1700000000.25, 1e-6);
  EXPECT_EQ(FieldOf(*events[0], 3).length_delimited(), "brain.Event:2");
  EXPECT_EQ(FieldOf(*events[1], 2).varint(), 301u);
  EXPECT_EQ(FieldOf(*Parse(FieldOf(*events[1], 7).length_delimited()), 1).varint(), 1u);
  EXPECT_NEAR(WallTime(*events[2]), 1700000001.25, 1e-6);
  EXPECT_EQ(FieldOf(*events[2], 2).varint(), 302u);
  const auto summary = Parse(FieldOf(*events[2], 5).length_delimited());
  ASSERT_EQ(summary->field_count(), 2);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(summary->field(i).number(), 1);
    const auto value = Parse(summary->field(i).length_delimited());
    EXPECT_EQ(FieldOf(*value, 1).length_delimited(), scalars[i].first);
    EXPECT_EQ(std::bit_cast<float>(FieldOf(*value, 2).fixed32()),
              static_cast<float>(scalars[i].second));
  }
}

std::vector<std::string> LinesOf(FileSystem& fs) {
  std::vector<std::string> lines = absl::StrSplit(*fs.ReadFile("/run/metrics.jsonl"), '\n');
  EXPECT_EQ(lines.back(), "");
  lines.pop_back();
  return lines;
}

std::vector<int64_t> StepsOf(FileSystem& fs) {
  std::vector<int64_t> steps;
  for (const std::string& line : LinesOf(fs))
    steps.push_back((*ParseJson(line, "line"))["step"].get<int64_t>());
  return steps;
}

TEST(RunLog, WritesOneObjectPerLine) {
  FaultyFileSystem fs;
  auto log = RunLog::Open(fs, "/run", 0);
  ASSERT_TRUE(log.ok()) << log.status();
  ASSERT_TRUE(log->Write(1, {{"z", 0.1}, {"a", NAN}, {"count", 3}}).ok());
  ASSERT_TRUE(log->Write(2, {}).ok());
  const auto lines = LinesOf(fs);
  ASSERT_EQ(lines.size(), 2u);
  const auto json = ParseJson(lines[0], "line");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ((*json)["z"].get<double>(), 0.1);
  EXPECT_TRUE((*json)["a"].is_null());
  EXPECT_GT((*json)["time"].get<double>(), 1.6e9);
  EXPECT_TRUE(absl::StartsWith(lines[0], "{\"step\":1,\"time\":"));
  EXPECT_TRUE(absl::EndsWith(lines[0], ",\"z\":0.1,\"a\":null,\"count\":3.0}"));
}

TEST(RunLog, ResumingRemovesLaterAndBrokenLines) {
  FaultyFileSystem fs;
  {
    auto log = RunLog::Open(fs, "/run", 0);
    for (int64_t step = 1; step <= 5; ++step) ASSERT_TRUE(log->Write(step, {{"loss", 1.0}}).ok());
  }
  const std::string whole = *fs.ReadFile("/run/metrics.jsonl");
  ASSERT_TRUE(RunLog::Open(fs, "/run", 5).ok());
  EXPECT_EQ(*fs.ReadFile("/run/metrics.jsonl"), whole);
  ASSERT_TRUE(WriteFileAtomically(fs, "/run/metrics.jsonl",
                                  "\xff\n[1]\n{\"x\":1}\n" + whole + "{\"step\":2,\"lo")
                  .ok());
  auto log = RunLog::Open(fs, "/run", 3);
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_THAT(StepsOf(fs), ElementsAre(1, 2, 3));
  ASSERT_TRUE(log->Write(4, {{"loss", 2.0}}).ok());
  EXPECT_THAT(StepsOf(fs), ElementsAre(1, 2, 3, 4));
}

TEST(RunLog, AFailingDiskLosesNoEarlierLine) {
  for (int64_t position = 0; position < 20; ++position) {
    FaultyFileSystem fs;
    ASSERT_TRUE(RunLog::Open(fs, "/run", 0)->Write(1, {{"loss", 1.0}}).ok());
    auto later = RunLog::Open(fs, "/run", 1);
    ASSERT_TRUE(later->Write(2, {{"loss", 1.0}}).ok());
    fs.FailAt(position, absl::FailedPreconditionError("disk full"));
    {
      auto log = RunLog::Open(fs, "/run", 1);
      if (log.ok()) (void)log->Write(2, {{"loss", 1.0}});
    }
    fs.FailNever();
    ASSERT_TRUE(RunLog::Open(fs, "/run", 1).ok());
    EXPECT_THAT(StepsOf(fs), ElementsAre(1)) << position;
  }
}

}  // namespace
}  // namespace tessera::train
