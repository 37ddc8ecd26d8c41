#include "tensor/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <limits>

#include "absl/strings/match.h"
#include "core/json.h"
#include "core/random.h"
#include "tests/core/faulty_file_system.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string FileOf(absl::string_view header, absl::string_view data) {
  const uint64_t size = header.size();
  return absl::StrCat(absl::string_view(reinterpret_cast<const char*>(&size), 8), header, data);
}

template <typename T>
absl::string_view BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

class Safetensors : public ::testing::Test {
 protected:
  absl::StatusOr<SafetensorsFile> OpenBytes(const std::string& bytes) {
    EXPECT_TRUE(WriteFileAtomically(fs_, "/f", bytes).ok());
    return SafetensorsFile::Open(fs_, "/f");
  }
  std::string ErrorOf(absl::string_view header, absl::string_view data) {
    return std::string(OpenBytes(FileOf(header, data)).status().message());
  }

  FaultyFileSystem fs_;
};

template <typename T>
std::vector<T> ValuesOf(const Tensor& tensor) {
  return {tensor.data<T>(), tensor.data<T>() + tensor.numel()};
}

TEST_F(Safetensors, ReadBackWhatWasWritten) {
  const Tensor odd = Tensor::From<uint8_t>({3}, std::vector<uint8_t>{1, 2, 255});
  const Tensor f32 =
      Tensor::From<float>({2, 3}, std::vector<float>{1, -2, 3.5f, NAN, -0.0f, 1e-42f});
  const Tensor bf16 = Tensor::From<BF16>({1}, std::vector<BF16>{BF16(1.5f)});
  const Tensor f64 = Tensor::From<double>({}, std::vector<double>{0.1});
  const Tensor i64 = Tensor::From<int64_t>({1, 2}, std::vector<int64_t>{-1, int64_t{1} << 62});
  const Tensor i32 = Tensor::From<int32_t>({2}, std::vector<int32_t>{-7, 7});
  const Tensor empty = Tensor::Empty({4, 0}, DType::kF32);
  const std::vector<NamedTensor> tensors = {{"odd", odd},    {"b.\"weight\"", f32}, {"a", bf16},
                                            {"scalar", f64}, {"i64", i64},          {"i32", i32},
                                            {"empty", empty}};
  ASSERT_TRUE(WriteSafetensors(fs_, "/f", tensors, {{"format", "pt"}, {"é\n", ""}}).ok());
  const auto file = SafetensorsFile::Open(fs_, "/f");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"é\n", ""}}));
  ASSERT_EQ(file->entries().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) {
    const auto read = file->Read(name);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->shape(), tensor.shape());
    ASSERT_EQ(read->dtype(), tensor.dtype()) << name;
    EXPECT_EQ(std::memcmp(read->raw(), tensor.raw(), static_cast<size_t>(tensor.bytes())), 0)
        << name;
  }
  EXPECT_EQ(file->Read("b.weight").status().message(),
            "/f: no tensor 'b.weight'; did you mean 'b.\"weight\"'?");
}

TEST_F(Safetensors, EveryTensorIsAlignedToItsElements) {
  const std::vector<NamedTensor> tensors = {{"a", Tensor::Zeros({3}, DType::kU8)},
                                            {"b", Tensor::Zeros({1}, DType::kBF16)},
                                            {"c", Tensor::Zeros({3}, DType::kF32)},
                                            {"d", Tensor::Zeros({1}, DType::kI64)},
                                            {"e", Tensor::Zeros({1}, DType::kF32)}};
  ASSERT_TRUE(WriteSafetensors(fs_, "/f", tensors).ok());
  const auto file = SafetensorsFile::Open(fs_, "/f");
  ASSERT_TRUE(file.ok());
  std::vector<std::string> order;
  for (const auto& entry : file->entries()) {
    order.push_back(entry.name);
    EXPECT_EQ(entry.begin % SizeOf(entry.dtype), 0) << entry.name;
  }
  EXPECT_THAT(order, ElementsAre("d", "c", "e", "b", "a"));
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, fs_.ReadFile("/f")->data(), 8);
  EXPECT_EQ(header_bytes % 8, 0u);
}

TEST_F(Safetensors, AFileWithNoTensorsIsFine) {
  ASSERT_TRUE(WriteSafetensors(fs_, "/f", {}).ok());
  const auto file = SafetensorsFile::Open(fs_, "/f");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(file->entries().empty());
  EXPECT_TRUE(OpenBytes(FileOf("{}", "")).ok());
}

TEST_F(Safetensors, HalfPrecisionBecomesF32Exactly) {
  const std::vector<uint16_t> bits = {0x3C00, 0xC000, 0x0001, 0x83FF, 0x0400,
                                      0x7BFF, 0x7C00, 0xFC00, 0x8000, 0x7E00};
  const auto file = OpenBytes(
      FileOf(R"({"h":{"dtype":"F16","shape":[10],"data_offsets":[0,20]}})", BytesOf(bits)));
  ASSERT_TRUE(file.ok()) << file.status();
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> expected = {1,   -2,   0x1p-24f, -1023 * 0x1p-24f, 0x1p-14f, 65504,
                                       inf, -inf, -0.0f};
  const std::vector<float> read = ValuesOf<float>(*file->Read("h"));
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(read[i]), std::bit_cast<uint32_t>(expected[i])) << i;
  }
  EXPECT_TRUE(std::isnan(read.back()));
}

TEST_F(Safetensors, NarrowIntegersAndBooleansKeepTheirValues) {
  const auto file = OpenBytes(FileOf(R"({"s":{"dtype":"I16","shape":[2],"data_offsets":[0,4]},
      "c":{"dtype":"I8","shape":[2],"data_offsets":[4,6]},
      "b":{"dtype":"BOOL","shape":[2],"data_offsets":[6,8]}})",
                                     absl::string_view("\x00\x80\xff\x7f\x80\x7f\x00\x01", 8)));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(ValuesOf<int32_t>(*file->Read("s")), ElementsAre(-32768, 32767));
  EXPECT_THAT(ValuesOf<int32_t>(*file->Read("c")), ElementsAre(-128, 127));
  EXPECT_THAT(ValuesOf<uint8_t>(*file->Read("b")), ElementsAre(0, 1));
}

TEST_F(Safetensors, FloatingPointIsReadAsF32AcrossChunks) {
  constexpr int64_t kCount = (1 << 16) + 3;
  const Tensor wide = Tensor::Empty({kCount}, DType::kF64),
               narrow = Tensor::Empty({kCount}, DType::kBF16);
  for (int64_t i = 0; i < kCount; ++i) {
    wide.data<double>()[i] = 0.1 * static_cast<double>(i);
    narrow.data<BF16>()[i] = BF16(static_cast<float>(i % 256));
  }
  const std::vector<NamedTensor> tensors = {
      {"wide", wide}, {"narrow", narrow}, {"int", Tensor::Zeros({1}, DType::kI64)}};
  ASSERT_TRUE(WriteSafetensors(fs_, "/f", tensors).ok());
  const auto file = SafetensorsFile::Open(fs_, "/f");
  std::vector<float> values(kCount);
  ASSERT_TRUE(file->ReadAsF32("wide", absl::MakeSpan(values)).ok());
  for (int64_t i = 0; i < kCount; ++i)
    ASSERT_EQ(values[i], static_cast<float>(0.1 * static_cast<double>(i)));
  ASSERT_TRUE(file->ReadAsF32("narrow", absl::MakeSpan(values)).ok());
  for (int64_t i = 0; i < kCount; ++i) ASSERT_EQ(values[i], static_cast<float>(i % 256));
  EXPECT_EQ(file->ReadAsF32("narrow", absl::MakeSpan(values).first(4)).message(),
            "/f: tensor 'narrow': 65539 elements of shape [65539], expected 4");
  EXPECT_EQ(file->ReadAsF32("int", absl::MakeSpan(values).first(1)).message(),
            "/f: tensor 'int': holds I64, expected floating point");
}

TEST_F(Safetensors, ErrorsSayWhatIsWrongWithTheHeader) {
  EXPECT_THAT(OpenBytes("1234567").status().message(), HasSubstr("7 bytes are too few"));
  EXPECT_THAT(OpenBytes(std::string(8, '\xff')).status().message(),
              HasSubstr("is it a safetensors file"));
  EXPECT_THAT(OpenBytes(std::string("\x03\0\0\0\0\0\0\0{}", 10)).status().message(),
              HasSubstr("header of 3 bytes, at most 2"));
  EXPECT_THAT(ErrorOf("[]", ""), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(ErrorOf("", ""), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(ErrorOf("{\"a\":[[[", ""), HasSubstr("/f: header:1:8: nested more than 3"));
  EXPECT_THAT(ErrorOf(R"({"a":1})", ""), HasSubstr("tensor 'a': 'dtype' is missing"));
  EXPECT_THAT(ErrorOf(R"({"a":{"dtype":"F32","shape":[1]}})", ""),
              HasSubstr("'data_offsets' is missing"));
  EXPECT_THAT(ErrorOf(R"({"a":{"dtype":"F8","shape":[],"data_offsets":[0,1]}})", "x"),
              HasSubstr("dtype \"F8\" is not supported, expected one of F64, F32"));
  EXPECT_THAT(ErrorOf(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", "x"),
              HasSubstr("shape: expected a list of non-negative integers"));
  EXPECT_THAT(ErrorOf(R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", "x"),
              HasSubstr("shape: expected"));
  EXPECT_THAT(ErrorOf(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1],"data_offsets":[0,1]}})", "x"),
              HasSubstr("7 dimensions, at most 6"));
  EXPECT_THAT(
      ErrorOf(R"({"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}})", "x"),
      HasSubstr("shape: expected"));
  EXPECT_THAT(
      ErrorOf(R"({"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", ""),
      HasSubstr("too large"));
  EXPECT_THAT(
      ErrorOf(R"({"a":{"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})", ""),
      HasSubstr("too large"));
  EXPECT_THAT(ErrorOf(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", "x"),
              HasSubstr("begin <= end"));
  EXPECT_THAT(
      ErrorOf(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,23]}})", std::string(23, 'x')),
      HasSubstr("23 bytes at [0, 23), expected 24 for F32[2, 3]"));
  EXPECT_THAT(ErrorOf(R"({"__metadata__":{"a":1}})", ""),
              HasSubstr("__metadata__: 'a' is no string"));
  EXPECT_THAT(ErrorOf(R"({"__metadata__":[]})", ""), HasSubstr("expected a map of strings"));
}

TEST_F(Safetensors, TensorsMustFillTheFileWithoutGapsAndOverlaps) {
  const auto header = [](int a, int b, int c, int d) {
    return absl::StrFormat(
        R"({"a":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]},"b":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}})",
        b - a, a, b, d - c, c, d);
  };
  EXPECT_EQ(ErrorOf(header(0, 2, 2, 4), "1234"), "");
  EXPECT_EQ(ErrorOf(header(2, 4, 0, 2), "1234"), "");
  EXPECT_EQ(ErrorOf(header(0, 2, 2, 2), "12"), "");
  EXPECT_THAT(ErrorOf(header(0, 2, 3, 4), "1234"),
              HasSubstr("tensor 'b': begins at byte 3 of the data, expected 2"));
  EXPECT_THAT(ErrorOf(header(0, 2, 1, 4), "1234"),
              HasSubstr("begins at byte 1 of the data, expected 2"));
  EXPECT_THAT(ErrorOf(header(0, 2, 0, 2), "12"), HasSubstr("begins at byte 0"));
  EXPECT_THAT(ErrorOf(header(1, 2, 2, 4), "1234"),
              HasSubstr("begins at byte 1 of the data, expected 0"));
  EXPECT_THAT(ErrorOf(header(0, 2, 2, 4), "12345"), HasSubstr("5 bytes of data, expected 4"));
  EXPECT_THAT(ErrorOf(header(0, 2, 2, 4), "123"), HasSubstr("is the file cut off?"));
}

TEST_F(Safetensors, NoMutationCrashesTheReader) {
  const std::vector<NamedTensor> tensors = {{"layer.weight", Tensor::Zeros({2, 3}, DType::kF32)},
                                            {"layer.bias", Tensor::Zeros({3}, DType::kBF16)},
                                            {"steps", Tensor::Zeros({}, DType::kI64)}};
  ASSERT_TRUE(WriteSafetensors(fs_, "/f", tensors, {{"format", "pt"}}).ok());
  const std::string original = *fs_.ReadFile("/f");
  const std::string tokens = "0123456789-.eE{}[]\":,\\u F";
  RandomStream random(1, Purpose::kTest);
  int64_t num_opened = 0;
  for (int trial = 0; trial < 20000; ++trial) {
    std::string bytes = original;
    const int64_t num_changes = random.Integer(1, 4);
    for (int64_t change = 0; change < num_changes; ++change) {
      const size_t at =
          static_cast<size_t>(random.Integer(0, static_cast<int64_t>(bytes.size()) - 1));
      switch (random.Integer(0, 4)) {
        case 0:
          bytes[at] = static_cast<char>(random.Next());
          break;
        case 1:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.Integer(0, 7)));
          break;
        case 2:
          bytes[at] = tokens[static_cast<size_t>(
              random.Integer(0, static_cast<int64_t>(tokens.size()) - 1))];
          break;
        case 3:
          bytes.insert(at, bytes.substr(at / 2, 5));
          break;
        case 4:
          bytes.resize(at + 1);
          break;
      }
    }
    const auto file = OpenBytes(bytes);
    if (!file.ok()) continue;
    ++num_opened;
    for (const auto& entry : file->entries()) {
      EXPECT_TRUE(file->Read(entry.name).ok());
      std::vector<float> values(static_cast<size_t>(entry.shape.numel()));
      EXPECT_EQ(file->ReadAsF32(entry.name, absl::MakeSpan(values)).ok(),
                IsFloatingPoint(entry.dtype));
    }
  }
  EXPECT_GT(num_opened, 100);
}

TEST_F(Safetensors, AFailingWriteLeavesTheOldFile) {
  const std::vector<NamedTensor> old_tensors = {{"old", Tensor::Zeros({5}, DType::kF32)}};
  const std::vector<NamedTensor> new_tensors = {{"new", Tensor::Zeros({7}, DType::kF32)}};
  ASSERT_TRUE(WriteSafetensors(fs_, "/f", old_tensors).ok());
  ASSERT_TRUE(fs_.SyncDirectory("/").ok());
  for (int64_t skip = 0;; ++skip) {
    fs_.FailAt(skip, absl::FailedPreconditionError("disk full"));
    const bool ok = WriteSafetensors(fs_, "/f", new_tensors).ok();
    fs_.FailNever();
    const auto file = SafetensorsFile::Open(fs_, "/f");
    ASSERT_TRUE(file.ok()) << "operation " << skip << ": " << file.status();
    if (ok) break;
    EXPECT_TRUE(file->Find("old") != nullptr || file->Find("new") != nullptr);
  }
  EXPECT_NE(SafetensorsFile::Open(fs_, "/f")->Find("new"), nullptr);
}

TEST(SafetensorsGolden, FilesOfOtherWritersOpen) {
  const char* shared = std::getenv("TESSERA_SHARED");
  const std::filesystem::path folder =
      std::filesystem::path(shared != nullptr ? shared : "../shared") / "golden";
  if (!std::filesystem::is_directory(folder)) GTEST_SKIP() << "no " << folder;
  int64_t num_files = 0;
  for (const auto& item : std::filesystem::directory_iterator(folder)) {
    if (item.path().extension() != ".safetensors") continue;
    ++num_files;
    const auto file = SafetensorsFile::Open(PosixFileSystem(), item.path().string());
    ASSERT_TRUE(file.ok()) << file.status();
    ASSERT_FALSE(file->entries().empty());
    EXPECT_TRUE(file->Read(file->entries().back().name).ok());
  }
  EXPECT_GT(num_files, 0);
}

}  // namespace
}  // namespace tessera
