// A data set with every kind of unusual and hostile picture: which are used, which are replaced, by
// what, and that neither depends on the number of workers.
#include <gmock/gmock.h>
// jpeglib.h needs cstdio before it.
#include <jpeglib.h>
#include <cstdio>

#include <map>
#include <set>

#include "data/loader.h"
#include "tests/data/data_testing.h"

namespace tessera {
namespace {

constexpr int kGood = 40;

std::string CmykJpeg() {
  jpeg_compress_struct info = {};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* out = nullptr;
  unsigned long size = 0;  // NOLINT: the type is libjpeg's
  jpeg_mem_dest(&info, &out, &size);
  info.image_height = info.image_width = 24;
  info.input_components = 4;
  info.in_color_space = JCS_CMYK;
  jpeg_set_defaults(&info);
  jpeg_start_compress(&info, TRUE);
  std::vector<uint8_t> row(24 * 4, 200);
  JSAMPROW line = row.data();
  for (int y = 0; y < 24; ++y) jpeg_write_scanlines(&info, &line, 1);
  jpeg_finish_compress(&info);
  const std::string bytes(reinterpret_cast<char*>(out), size);
  jpeg_destroy_compress(&info);
  free(out);
  return bytes;
}

std::string SixteenBitPng() {
  const cv::Mat picture(20, 30, CV_16UC3, cv::Scalar(1000, 20000, 60000));
  std::vector<uint8_t> bytes;
  CHECK(cv::imencode(".png", picture, bytes));
  return std::string(bytes.begin(), bytes.end());
}

std::string TurnedJpeg() {
  const std::string jpeg = EncodedPicture(30, 20, 3);
  const std::string exif(
      "\xFF\xE1\0\x22"
      "Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
      36);
  return jpeg.substr(0, 2) + exif + jpeg.substr(2);
}

// A header that asks for 4 billion pixels.
std::string Bomb() {
  std::string png = EncodedPicture(4, 4, 0, ".png");
  return png.replace(16, 8, std::string("\x00\x01\x00\x00\x00\x01\x00\x00", 8));
}

std::string CorruptPng() {
  std::string png = EncodedPicture(40, 40, 0, ".png");
  for (size_t i = 60; i < 120; ++i) png[i] = static_cast<char>(png[i] ^ 0x55);
  return png;
}

class BadSamples : public ::testing::Test {
 protected:
  BadSamples() {
    FLAGS_minloglevel = google::GLOG_ERROR;
    for (int i = 0; i < kGood; ++i) {
      folder_.Write(absl::StrFormat("train/a/good%02d.jpg", i), EncodedPicture(33 + i % 3, 40, i));
    }
    folder_.Write("train/b/cmyk.jpg", CmykJpeg());
    folder_.Write("train/b/sixteen.png", SixteenBitPng());
    folder_.Write("train/b/turned.jpg", TurnedJpeg());
    folder_.Write("train/b/png.JPEG", EncodedPicture(25, 25, 1, ".png"));
    for (const auto& [name, kind] : Bad()) {
      const std::string whole = EncodedPicture(50, 50, 5);
      folder_.Write(absl::StrCat("train/c/", name), name == "empty.jpg"   ? ""
                                                    : name == "zeros.jpg" ? std::string(5000, '\0')
                                                    : name == "cut.jpg"
                                                        ? whole.substr(0, whole.size() / 2)
                                                    : name == "text.png"    ? "no picture"
                                                    : name == "corrupt.png" ? CorruptPng()
                                                                            : Bomb());
    }
    config_.root = folder_.path();
    config_.image_size = 16;
    config_.cache_mb = 0;
    FLAGS_minloglevel = google::GLOG_FATAL;
  }
  static std::map<std::string, BadFile> Bad() {
    return {{"empty.jpg", BadFile::kEmpty},     {"zeros.jpg", BadFile::kUnrecognised},
            {"cut.jpg", BadFile::kTruncated},   {"text.png", BadFile::kUnrecognised},
            {"corrupt.png", BadFile::kCorrupt}, {"bomb.png", BadFile::kTooLarge}};
  }

  TempFolder folder_;
  DataConfig config_;
};

struct Epoch {
  std::vector<std::string> names;
  std::vector<float> pixels;
  LoaderStats stats;
};

Epoch ReadEpoch(const DataConfig& config, const ImageSource& source) {
  const std::unique_ptr<Loader> loader =
      Unwrap(Loader::Create(config, source, {.training = true, .batch_size = 10, .seed = 3}));
  Epoch epoch;
  while (const std::optional<Batch> batch = Unwrap(loader->Next())) {
    for (int64_t i = 0; i < 10; ++i) {
      epoch.names.push_back(source.name(batch->samples.data<int64_t>()[i]));
    }
    const float* pixels = batch->images.data<float>();
    epoch.pixels.insert(epoch.pixels.end(), pixels, pixels + batch->images.numel());
  }
  epoch.stats = loader->stats();
  return epoch;
}

TEST_F(BadSamples, AreReplacedAlikeForAnyNumberOfWorkersAndUnusualOnesAreUsed) {
  const std::unique_ptr<ImageSource> source = Unwrap(OpenSource(config_, Split::kTrain));
  ASSERT_EQ(source->num_samples(), kGood + 4 + 6);
  config_.workers = 0;
  const Epoch expected = ReadEpoch(config_, *source);
  ASSERT_EQ(expected.names.size(), 50u);
  std::set<std::string> seen(expected.names.begin(), expected.names.end());
  for (const char* name : {"cmyk.jpg", "sixteen.png", "turned.jpg", "png.JPEG"}) {
    EXPECT_EQ(seen.count(folder_ / absl::StrCat("train/b/", name)), 1u) << name;
  }
  for (const auto& [name, kind] : Bad()) {
    EXPECT_EQ(seen.count(folder_ / absl::StrCat("train/c/", name)), 0u) << name;
    EXPECT_GE(expected.stats.bad[static_cast<int>(kind)], 1) << name;
    EXPECT_THAT(expected.stats.first_bad, testing::Contains(testing::HasSubstr(name)));
  }
  for (const float value : expected.pixels) ASSERT_TRUE(std::isfinite(value));
  for (const int64_t workers : {1, 4, 8}) {
    config_.workers = workers;
    const Epoch epoch = ReadEpoch(config_, *source);
    EXPECT_EQ(epoch.names, expected.names) << workers;
    EXPECT_TRUE(epoch.pixels == expected.pixels) << workers;
    EXPECT_EQ(epoch.stats.bad, expected.stats.bad) << workers;
    EXPECT_EQ(epoch.stats.first_bad, expected.stats.first_bad) << workers;
  }
}

TEST_F(BadSamples, StopAnEvaluationThatNamesTheFile) {
  config_.val_split = "train";
  const std::unique_ptr<ImageSource> source = Unwrap(OpenSource(config_, Split::kVal));
  for (const int64_t workers : {0, 4}) {
    config_.workers = workers;
    const std::unique_ptr<Loader> loader =
        Unwrap(Loader::Create(config_, *source, {.batch_size = 10}));
    absl::Status status;
    while (status.ok()) {
      const absl::StatusOr<std::optional<Batch>> batch = loader->Next();
      ASSERT_TRUE(!batch.ok() || batch->has_value()) << "no error";
      status = batch.status();
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(status.message(), testing::HasSubstr("train/c/bomb.png"));
  }
}

}  // namespace
}  // namespace tessera
