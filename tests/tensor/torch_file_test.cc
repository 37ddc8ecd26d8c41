#include "tensor/torch/torch_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "core/check.h"
#include "tests/core/faulty_file_system.h"
#include "tests/tensor/torch_testing.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What real torch.save wrote; torch_fixtures/make.py says what they hold.
std::string Fixture(const std::string& name) {
  return absl::StrCat(TESSERA_SOURCE_DIR, "/tests/tensor/torch_fixtures/", name);
}

std::vector<std::string> NamesOf(const TorchFile& file) {
  std::vector<std::string> names;
  for (const TorchFile::Entry& entry : file.entries()) names.push_back(entry.name);
  return names;
}

const TorchFile::Entry& EntryOf(const TorchFile& file, const std::string& name) {
  for (const TorchFile::Entry& entry : file.entries()) {
    if (entry.name == name) return entry;
  }
  LOG(FATAL) << "no " << name;
}

std::vector<float> Values(const TorchFile& file, const std::string& name) {
  const TorchFile::Entry& entry = EntryOf(file, name);
  const Tensor tensor = Tensor::Empty(entry.shape, DType::kF32);
  CHECK(file.Read(entry, tensor).ok());
  return {tensor.data<float>(), tensor.data<float>() + tensor.numel()};
}

std::vector<float> Range(int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

std::string ErrorOfFixture(const std::string& name) {
  const auto file = TorchFile::Open(PosixFileSystem(), Fixture(name));
  EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(file.status().message(), HasSubstr(Fixture(name) + ": "));
  return std::string(file.status().message());
}

class TorchFiles : public ::testing::Test {
 protected:
  absl::StatusOr<TorchFile> Open(const std::string& bytes) {
    CHECK(WriteFileAtomically(fs_, "/f.pth", bytes).ok());
    return TorchFile::Open(fs_, "/f.pth");
  }
  // An archive of this pickle and a storage of six floats.
  std::string Archive(absl::string_view value, const ZipOptions& options = {}) {
    std::string floats;
    for (int i = 0; i < 6; ++i) floats += BytesOfNumber(static_cast<float>(i));
    return ZipBytes({{"a/data.pkl", PickleProgram(value)}, {"a/data/0", floats}}, options);
  }
  std::string ErrorOf(const std::string& bytes) {
    const auto file = Open(bytes);
    EXPECT_EQ(file.status().code(), absl::StatusCode::kDataLoss) << file.status();
    EXPECT_TRUE(absl::StartsWith(file.status().message(), "/f.pth: ")) << file.status();
    return std::string(file.status().message());
  }
  std::string ErrorOfTensor(const std::string& tensor) {
    return ErrorOf(Archive(PickleDict({{"w", tensor}})));
  }

  FaultyFileSystem fs_;
};

TEST_F(TorchFiles, HoldWhatTorchSaveWrote) {
  for (const char* name : {"state.pth", "protocol4.pth"}) {
    SCOPED_TRACE(name);
    const auto file = TorchFile::Open(PosixFileSystem(), Fixture(name));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_THAT(NamesOf(*file),
                ElementsAre("f32", "bf16", "f16", "f64", "i64", "i32", "bool", "whole", "rows",
                            "strided", "transposed", "expanded", "empty", "parameter"));
    EXPECT_EQ(EntryOf(*file, "f32").shape, Shape({2, 3}));
    EXPECT_EQ(Values(*file, "f32"), Range(6));
    EXPECT_EQ(EntryOf(*file, "bf16").dtype, FileDType::kBF16);
    EXPECT_EQ(Values(*file, "bf16"), Range(6));
    EXPECT_THAT(Values(*file, "f16"), ElementsAre(0, 1, 2, 65504, 0x1p-24f, -0.5f));
    EXPECT_EQ(Values(*file, "f64"), Range(3));
    EXPECT_EQ(EntryOf(*file, "i32").dtype, FileDType::kI32);
    EXPECT_EQ(EntryOf(*file, "bool").dtype, FileDType::kBool);
    const Tensor counter = Tensor::Empty({}, DType::kI64);
    ASSERT_TRUE(file->Read(EntryOf(*file, "i64"), counter).ok());
    EXPECT_EQ(*counter.data<int64_t>(), 7);
    EXPECT_EQ(Values(*file, "parameter"), Range(2));
  }
}

TEST_F(TorchFiles, ViewsShareStorages) {
  const auto file = TorchFile::Open(PosixFileSystem(), Fixture("state.pth"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(Values(*file, "whole"), Range(20));
  EXPECT_THAT(Values(*file, "rows"), ElementsAre(5, 6, 7, 8, 9, 10, 11, 12, 13, 14));
  EXPECT_THAT(Values(*file, "strided"), ElementsAre(5, 7, 9, 15, 17, 19));
  EXPECT_EQ(EntryOf(*file, "transposed").shape, Shape({5, 4}));
  EXPECT_THAT(Values(*file, "transposed"),
              ElementsAre(0, 5, 10, 15, 1, 6, 11, 16, 2, 7, 12, 17, 3, 8, 13, 18, 4, 9, 14, 19));
  EXPECT_THAT(Values(*file, "expanded"), ElementsAre(5, 5, 5, 5, 5, 5));
  EXPECT_THAT(Values(*file, "empty"), ElementsAre());
  EXPECT_EQ(EntryOf(*file, "whole").offset, EntryOf(*file, "transposed").offset);
}

TEST_F(TorchFiles, WrappersComeOff) {
  auto file = TorchFile::Open(PosixFileSystem(), Fixture("module_prefix.pth"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(NamesOf(*file), ElementsAre("weight", "bias"));
  EXPECT_THAT(Values(*file, "bias"), ElementsAre(9));
  // Averaged weights come first.
  file = TorchFile::Open(PosixFileSystem(), Fixture("ema.pth"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(Values(*file, "bias"), ElementsAre(10));

  const std::string w = PickleTensor("FloatStorage", "0", 1, {2}, {1});
  file =
      Open(Archive(PickleDict({{"model_ema", PickleDict({{"module", PickleDict({{"w", w}})}})}})));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(Values(*file, "w"), ElementsAre(1, 2));
  // A tensor may be called like a wrapper, and a prefix stays that not all names have.
  file = Open(Archive(PickleDict({{"model", w}, {"module.w", w}, {"w", w}, {"w", w}})));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(NamesOf(*file), ElementsAre("model", "module.w", "w"));
}

TEST_F(TorchFiles, Zip64IsRead) {
  const std::string w = PickleTensor("FloatStorage", "0", 0, {2, 3}, {3, 1});
  const auto file = Open(Archive(PickleDict({{"w", w}}), {.zip64 = true}));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(Values(*file, "w"), Range(6));
}

TEST_F(TorchFiles, OtherFormatsOfPyTorchAreNamed) {
  EXPECT_THAT(ErrorOfFixture("legacy.pth"), HasSubstr("the format of PyTorch before 1.6"));
  EXPECT_THAT(ErrorOfFixture("script.pt"), HasSubstr("TorchScript"));
  EXPECT_THAT(ErrorOfFixture("whole_module.pth"),
              HasSubstr("data.pkl: byte 2: 'torch.nn.modules.linear.Linear' is not allowed"));
  EXPECT_THAT(ErrorOfFixture("hostile.pth"), HasSubstr("'posix.system' is not allowed"));
}

TEST_F(TorchFiles, TensorsStayWithinTheirStorages) {
  const auto error = [this](int64_t first, const std::vector<int64_t>& shape,
                            const std::vector<int64_t>& strides) {
    return ErrorOfTensor(PickleTensor("FloatStorage", "0", first, shape, strides));
  };
  EXPECT_EQ(error(0, {7}, {1}),
            "/f.pth: tensor 'w': F32[7] reaches beyond the 6 elements of its storage");
  EXPECT_THAT(error(1, {6}, {1}), HasSubstr("reaches beyond"));
  EXPECT_THAT(error(6, {}, {}), HasSubstr("reaches beyond"));
  EXPECT_THAT(error(-1, {2}, {1}), HasSubstr("reaches beyond"));
  EXPECT_THAT(error(0, {2, 2}, {int64_t{1} << 62, int64_t{1} << 62}), HasSubstr("reaches beyond"));
  EXPECT_THAT(error(int64_t{1} << 62, {int64_t{1} << 60}, {3}), HasSubstr("reaches beyond"));
  EXPECT_THAT(error(0, {int64_t{1} << 40, int64_t{1} << 40}, {0, 0}), HasSubstr("too large"));
  EXPECT_THAT(error(0, {2}, {-1}), HasSubstr("sizes"));
  EXPECT_THAT(error(0, {-2}, {1}), HasSubstr("sizes"));
  EXPECT_THAT(error(0, {2, 1}, {1}), HasSubstr("as many strides"));
  EXPECT_THAT(error(0, {1, 1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1}), HasSubstr("at most 6 sizes"));
  EXPECT_THAT(ErrorOfTensor(PickleTensor("FloatStorage", "1", 0, {1}, {1})),
              HasSubstr("data/1 is not in the file"));
  EXPECT_THAT(ErrorOfTensor(PickleTensor("QInt8Storage", "0", 0, {1}, {1})),
              HasSubstr("'torch.QInt8Storage' is not allowed"));
  EXPECT_THAT(ErrorOfTensor("ctorch._utils\n_rebuild_tensor_v2\n)R"), HasSubstr("without storage"));
  EXPECT_THAT(ErrorOfTensor(absl::StrCat("ctorch._utils\n_rebuild_tensor_v2\n(", PickleInt(0),
                                         PickleInt(0), "))tR")),
              HasSubstr("expected a storage"));
}

TEST_F(TorchFiles, OtherContentsAreErrors) {
  EXPECT_THAT(ErrorOf(Archive("]")), HasSubstr("holds no state_dict"));
  EXPECT_THAT(ErrorOf(Archive("}")), HasSubstr("holds no tensors"));
  EXPECT_THAT(ErrorOf(Archive(PickleDict({{"a", "N"}}))), HasSubstr("holds no tensors"));
  // A dict that wraps itself.
  EXPECT_THAT(ErrorOf(Archive(absl::StrCat("}q", std::string(1, '\0'), PickleText("model"), "h",
                                           std::string(1, '\0'), "s"))),
              HasSubstr("holds no state_dict"));
  EXPECT_THAT(ErrorOf(ZipBytes({{"a/b", "c"}})), HasSubstr("no data.pkl"));
  EXPECT_THAT(ErrorOf(ZipBytes({{"a/data.pkl", "N."}, {"a/byteorder", "big"}})),
              HasSubstr("byte order"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("no file of torch.save"));
  EXPECT_THAT(ErrorOf("{\"a\": 1}"), HasSubstr("no file of torch.save"));
}

TEST_F(TorchFiles, CutOrDamagedFilesAreErrors) {
  const std::string whole =
      Archive(PickleDict({{"w", PickleTensor("FloatStorage", "0", 0, {6}, {1})}}));
  ASSERT_TRUE(Open(whole).ok());
  for (size_t size = 0; size < whole.size(); ++size) ErrorOf(whole.substr(0, size));
  EXPECT_THAT(ErrorOf(whole.substr(0, whole.size() - 1)), HasSubstr("is it cut off?"));
  EXPECT_THAT(ErrorOf(Archive("N", {.flags = 1})), HasSubstr("compressed or encrypted"));
  EXPECT_THAT(ErrorOf(Archive("N", {.method = 8})), HasSubstr("compressed or encrypted"));
}

TEST_F(TorchFiles, SuffixesAreThoseOfTorchSave) {
  EXPECT_TRUE(HasTorchSuffix("a/b.pth"));
  EXPECT_TRUE(HasTorchSuffix("pytorch_model.bin"));
  EXPECT_FALSE(HasTorchSuffix("a.safetensors"));
  EXPECT_FALSE(HasTorchSuffix("runs/pth"));
}

}  // namespace
}  // namespace tessera
