#include "data/decode.h"

#include <gmock/gmock.h>
// jpeglib.h needs cstdio before it.
#include <jpeglib.h>
#include <cstdio>

#include <opencv2/imgproc.hpp>

#include "core/random.h"
#include "tests/data/data_testing.h"

namespace tessera {
namespace {

using testing::HasSubstr;

absl::StatusOr<DecodedImage> Decode(const std::string& bytes, const DecodeOptions& options = {}) {
  return DecodeImage(AsBytes(bytes), options);
}

BadFile KindOf(const std::string& bytes, const DecodeOptions& options = {}) {
  const auto image = Decode(bytes, options);
  CHECK(!image.ok()) << "it decodes";
  return BadFileKind(image.status());
}

std::vector<uint8_t> Pixels(const Image& image) {
  return std::vector<uint8_t>(image.data(), image.data() + image.bytes());
}

std::string Encode(const cv::Mat& mat, const std::string& extension,
                   const std::vector<int>& parameters = {}) {
  std::vector<uint8_t> bytes;
  CHECK(cv::imencode(extension, mat, bytes, parameters));
  return std::string(bytes.begin(), bytes.end());
}

using PixelValue = int (*)(int y, int x, int channel);

int Noise(int y, int x, int channel) {
  return static_cast<int>((3 * x + 2 * y * channel + SplitMix64(y * 1000 + x) % 60) % 256);
}

// A JPEG of these channel values in the given libjpeg colour space.
std::string EncodeJpeg(int height, int width, int components, J_COLOR_SPACE space, int h_samp,
                       int v_samp, bool progressive, PixelValue value) {
  jpeg_compress_struct info = {};
  jpeg_error_mgr errors;
  info.err = jpeg_std_error(&errors);
  jpeg_create_compress(&info);
  unsigned char* out = nullptr;
  unsigned long size = 0;  // NOLINT: the type is libjpeg's
  jpeg_mem_dest(&info, &out, &size);
  info.image_height = height;
  info.image_width = width;
  info.input_components = components;
  info.in_color_space = space;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, 90, TRUE);
  if (components == 3) {
    info.comp_info[0].h_samp_factor = h_samp;
    info.comp_info[0].v_samp_factor = v_samp;
  }
  if (progressive) jpeg_simple_progression(&info);
  jpeg_start_compress(&info, TRUE);
  std::vector<uint8_t> row(width * components);
  for (int y = 0; y < height; ++y) {
    for (int i = 0; i < width * components; ++i) {
      row[i] = static_cast<uint8_t>(value(y, i / components, i % components));
    }
    JSAMPROW line = row.data();
    jpeg_write_scanlines(&info, &line, 1);
  }
  jpeg_finish_compress(&info);
  const std::string bytes(reinterpret_cast<char*>(out), size);
  jpeg_destroy_compress(&info);
  free(out);
  return bytes;
}

TEST(Decode, RedIsTheFirstChannelInEveryFormat) {
  const cv::Mat red(20, 30, CV_8UC3, cv::Scalar(0, 0, 255));
  for (const char* extension : {".jpg", ".png", ".webp", ".bmp"}) {
    const DecodedImage image = Unwrap(Decode(Encode(red, extension)));
    EXPECT_EQ(image.height, 20);
    EXPECT_EQ(image.width, 30);
    for (int64_t i = 0; i < 20 * 30; ++i) {
      ASSERT_NEAR(image.pixels.data()[3 * i], 255, 2) << extension;
      ASSERT_NEAR(image.pixels.data()[3 * i + 1], 0, 2) << extension;
      ASSERT_NEAR(image.pixels.data()[3 * i + 2], 0, 2) << extension;
    }
  }
}

TEST(Decode, ContentsDecideTheFormat) {
  const cv::Mat picture(4, 4, CV_8UC3, cv::Scalar(1, 2, 3));
  EXPECT_EQ(Unwrap(Decode(Encode(picture, ".jpg"))).format, ImageFormat::kJpeg);
  EXPECT_EQ(Unwrap(Decode(Encode(picture, ".png"))).format, ImageFormat::kPng);
  EXPECT_EQ(Unwrap(Decode(Encode(picture, ".webp"))).format, ImageFormat::kWebp);
  EXPECT_EQ(Unwrap(Decode(Encode(picture, ".bmp"))).format, ImageFormat::kBmp);
}

TEST(Decode, GrayIsReplicatedAlphaDroppedAndOfSixteenBitsTheHighByteKept) {
  cv::Mat gray(1, 1, CV_8UC1, cv::Scalar(77));
  EXPECT_THAT(Pixels(Unwrap(Decode(Encode(gray, ".png"))).pixels),
              testing::ElementsAre(77, 77, 77));
  cv::Mat alpha(1, 1, CV_8UC4, cv::Scalar(10, 20, 30, 0));
  EXPECT_THAT(Pixels(Unwrap(Decode(Encode(alpha, ".png"))).pixels),
              testing::ElementsAre(30, 20, 10));
  cv::Mat deep(1, 1, CV_16UC3, cv::Scalar(0x12FF, 0x3480, 0x5601));
  EXPECT_THAT(Pixels(Unwrap(Decode(Encode(deep, ".png"))).pixels),
              testing::ElementsAre(0x56, 0x34, 0x12));
  cv::Mat deep_gray(1, 1, CV_16UC1, cv::Scalar(0xABFF));
  EXPECT_THAT(Pixels(Unwrap(Decode(Encode(deep_gray, ".png"))).pixels),
              testing::ElementsAre(0xAB, 0xAB, 0xAB));
  EXPECT_THAT(Pixels(Unwrap(Decode(Encode(gray, ".jpg"))).pixels),
              testing::ElementsAre(77, 77, 77));
}

TEST(Decode, OddSizesWork) {
  for (const auto& [height, width] : {std::pair{1, 1}, {2000, 3}, {3, 2000}, {17, 9}}) {
    for (const char* extension : {".jpg", ".png"}) {
      const DecodedImage image = Unwrap(Decode(EncodedPicture(height, width, 1, extension)));
      EXPECT_EQ(image.pixels.height(), height);
      EXPECT_EQ(image.pixels.width(), width);
    }
  }
}

TEST(Decode, CmykJpegBecomesRgb) {
  // Ink is stored inverted, as Adobe does: 255 is none. Half black, full yellow.
  const auto ink = [](int, int, int channel) {
    return channel == 2 ? 0 : channel == 3 ? 128 : 255;
  };
  const DecodedImage image = Unwrap(Decode(EncodeJpeg(8, 8, 4, JCS_CMYK, 1, 1, false, ink)));
  ASSERT_EQ(image.pixels.bytes(), 8 * 8 * 3);
  for (int64_t i = 0; i < 8 * 8; ++i) {
    EXPECT_NEAR(image.pixels.data()[3 * i], 128, 2);
    EXPECT_NEAR(image.pixels.data()[3 * i + 1], 128, 2);
    EXPECT_NEAR(image.pixels.data()[3 * i + 2], 0, 2);
  }
}

// The part that was asked for has the same bits as in the whole picture, for every subsampling.
TEST(Decode, ARegionOfAJpegIsExact) {
  const std::pair<int, int> samplings[] = {{1, 1}, {2, 1}, {2, 2}, {1, 2}, {4, 1}};
  RandomStream random(1, Purpose::kTest);
  for (const auto& [h, v] : samplings) {
    for (const bool progressive : {false, true}) {
      const std::string bytes = EncodeJpeg(75, 101, 3, JCS_RGB, h, v, progressive, Noise);
      const DecodedImage whole = Unwrap(Decode(bytes));
      for (int i = 0; i < 60; ++i) {
        Rect r;
        r.height = random.Integer(1, 75);
        r.width = random.Integer(1, 101);
        r.top = random.Integer(0, 75 - r.height);
        r.left = random.Integer(0, 101 - r.width);
        const DecodedImage part =
            Unwrap(Decode(bytes, {.region = [&r](int64_t height, int64_t width) {
                            EXPECT_EQ(height, 75);
                            EXPECT_EQ(width, 101);
                            return r;
                          }}));
        const Rect inside{r.top - part.covers.top, r.left - part.covers.left, r.height, r.width};
        ASSERT_TRUE(Pixels(Image::Copy(part.pixels.view().Crop(inside))) ==
                    Pixels(Image::Copy(whole.pixels.view().Crop(r))))
            << h << "x" << v << " " << r.top << "," << r.left << " " << r.height << "x" << r.width;
      }
    }
  }
}

TEST(Decode, EmptyAndUnknownFilesAreToldApart) {
  EXPECT_EQ(KindOf(""), BadFile::kEmpty);
  EXPECT_EQ(KindOf("x"), BadFile::kUnrecognised);
  EXPECT_EQ(KindOf("<html>not found</html>"), BadFile::kUnrecognised);
  EXPECT_EQ(KindOf(std::string(1000, '\0')), BadFile::kUnrecognised);
}

TEST(Decode, AFileCutAnywhereIsTruncated) {
  for (const char* extension : {".jpg", ".png", ".bmp", ".webp"}) {
    const std::string whole = EncodedPicture(60, 40, 3, extension);
    for (size_t length = 30; length < whole.size(); length += 1 + whole.size() / 97) {
      const auto image = Decode(whole.substr(0, length));
      ASSERT_FALSE(image.ok()) << extension << " " << length << " of " << whole.size();
      EXPECT_TRUE(BadFileKind(image.status()) == BadFile::kTruncated ||
                  BadFileKind(image.status()) == BadFile::kCorrupt)
          << image.status();
    }
    const auto almost = Decode(whole.substr(0, whole.size() - 1));
    EXPECT_EQ(BadFileKind(almost.status()), BadFile::kTruncated) << extension;
  }
}

TEST(Decode, ACutJpegIsNoticedEvenIfTheRegionIsWhole) {
  const std::string whole = EncodedPicture(200, 200, 3);
  const DecodeOptions top{.region = [](int64_t, int64_t) { return Rect{0, 0, 8, 8}; }};
  EXPECT_TRUE(Decode(whole, top).ok());
  EXPECT_EQ(KindOf(whole.substr(0, whole.size() / 2), top), BadFile::kTruncated);
}

TEST(Decode, RubbishInsideAJpegIsDamageButDecodes) {
  std::string bytes = EncodedPicture(64, 64, 3);
  bytes.insert(bytes.size() - 2, 40, '\x11');
  const auto image = Decode(bytes);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_TRUE(image->damaged);
  EXPECT_THAT(image->warning, HasSubstr("extraneous"));
  EXPECT_TRUE(Pixels(image->pixels) == Pixels(Unwrap(Decode(EncodedPicture(64, 64, 3))).pixels));
}

TEST(Decode, FlippedBitsNeverCrash) {
  RandomStream random(2, Purpose::kTest);
  for (const char* extension : {".jpg", ".png", ".bmp", ".webp"}) {
    const std::string whole = EncodedPicture(33, 47, 3, extension);
    for (int i = 0; i < 300; ++i) {
      std::string bytes = whole;
      for (int k = 0; k < 4; ++k) {
        bytes[random.Integer(4, static_cast<int64_t>(bytes.size()) - 1)] ^=
            static_cast<char>(1 << random.Integer(0, 7));
      }
      const auto image = Decode(bytes, {.max_pixels = 1 << 20});
      if (image.ok()) {
        EXPECT_EQ(image->pixels.height(), image->covers.height);
      }
    }
  }
}

TEST(Decode, HugeHeadersAreRefusedBeforeDecoding) {
  std::string png = EncodedPicture(4, 4, 0, ".png");
  png.replace(16, 8, std::string("\x00\x01\x00\x00\x00\x01\x00\x00", 8));
  EXPECT_EQ(KindOf(png), BadFile::kTooLarge);
  std::string bmp = EncodedPicture(4, 4, 0, ".bmp");
  bmp.replace(18, 8, "\xFF\xFF\xFF\x7F\xFF\xFF\xFF\x7F");
  EXPECT_EQ(KindOf(bmp), BadFile::kTooLarge);
  std::string jpeg = EncodedPicture(4, 4, 0);
  const size_t frame = jpeg.find("\xFF\xC0");
  jpeg.replace(frame + 5, 4, "\xFF\xDC\xFF\xDC");
  EXPECT_EQ(KindOf(jpeg), BadFile::kTooLarge);
  EXPECT_EQ(KindOf(EncodedPicture(40, 40, 0), {.max_pixels = 1599}), BadFile::kTooLarge);
  EXPECT_TRUE(Decode(EncodedPicture(40, 40, 0), {.max_pixels = 1600}).ok());
  jpeg.replace(frame + 5, 4, std::string(4, '\0'));
  EXPECT_FALSE(Decode(jpeg).ok());
}

// An APP1 segment with this orientation, little- or big-endian.
std::string WithOrientation(const std::string& jpeg, char orientation, bool little) {
  const std::string tiff = little
                               ? std::string("II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0", 18) +
                                     std::string({orientation, 0, 0, 0, 0, 0, 0, 0})
                               : std::string("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01", 18) +
                                     std::string({0, orientation, 0, 0, 0, 0, 0, 0});
  const std::string body = std::string("Exif\0\0", 6) + tiff;
  const auto length = static_cast<char>(body.size() + 2);
  return jpeg.substr(0, 2) + std::string({'\xFF', '\xE1', 0, length}) + body + jpeg.substr(2);
}

TEST(Decode, ExifOrientationIsIgnoredUnlessAskedFor) {
  const std::string plain = EncodedPicture(20, 30, 4);
  cv::Mat stored(20, 30, CV_8UC3);
  const DecodedImage decoded = Unwrap(Decode(plain));
  std::memcpy(stored.data, decoded.pixels.data(), decoded.pixels.bytes());
  for (const bool little : {true, false}) {
    for (char orientation = 1; orientation <= 8; ++orientation) {
      const std::string bytes = WithOrientation(plain, orientation, little);
      EXPECT_TRUE(Pixels(Unwrap(Decode(bytes)).pixels) == Pixels(decoded.pixels));
      cv::Mat upright = stored.clone();
      if (orientation >= 5) cv::transpose(upright, upright);
      if (orientation == 2 || orientation == 6) cv::flip(upright, upright, 1);
      if (orientation == 3 || orientation == 7) cv::flip(upright, upright, -1);
      if (orientation == 4 || orientation == 8) cv::flip(upright, upright, 0);
      const DecodedImage turned = Unwrap(Decode(bytes, {.exif_rotate = true}));
      EXPECT_EQ(turned.height, upright.rows);
      EXPECT_TRUE(std::equal(upright.datastart, upright.dataend, turned.pixels.data()))
          << static_cast<int>(orientation);
    }
  }
}

// A GIF of 3 x 2 pixels, colours black, red, green, blue; indices 1 2 3 / 3 2 1.
std::string SmallGif(bool with_second_frame) {
  std::string gif = "GIF89a";
  gif += std::string("\x03\0\x02\0\x81\0\0", 7);
  gif += std::string("\0\0\0\xFF\0\0\0\xFF\0\0\0\xFF", 12);
  const std::string frame(",\0\0\0\0\x03\0\x02\0\0", 10);
  // LZW codes of three bits: clear 4, 1, 2, 3, (four bits from here) 3, 2, 1, end 5.
  std::string bits;
  const auto put = [&bits](int code, int width) {
    for (int b = 0; b < width; ++b) bits.push_back(static_cast<char>(code >> b & 1));
  };
  put(4, 3);
  put(1, 3);
  put(2, 3);
  put(3, 3);
  put(3, 4);
  put(2, 4);
  put(1, 4);
  put(5, 4);
  std::string data((bits.size() + 7) / 8, '\0');
  for (size_t i = 0; i < bits.size(); ++i) data[i / 8] |= static_cast<char>(bits[i] << (i % 8));
  const std::string body =
      frame + "\x02" + std::string(1, static_cast<char>(data.size())) + data + std::string(1, '\0');
  gif += std::string("!\xF9\x04\0\0\0\0\0", 8) + body;
  if (with_second_frame) gif += body;
  return gif + ";";
}

TEST(Decode, TheFirstFrameOfAGifIsTaken) {
  for (const bool second : {false, true}) {
    const auto image = Decode(SmallGif(second));
    ASSERT_TRUE(image.ok()) << image.status();
    EXPECT_THAT(Pixels(image->pixels), testing::ElementsAre(255, 0, 0, 0, 255, 0, 0, 0, 255, 0, 0,
                                                            255, 0, 255, 0, 255, 0, 0));
  }
}

TEST(Decode, HostileGifsAreErrorsAndNeverCrash) {
  const std::string whole = SmallGif(false);
  for (size_t length = 6; length + 3 < whole.size(); ++length) {
    EXPECT_FALSE(Decode(whole.substr(0, length)).ok()) << length;
  }
  RandomStream random(4, Purpose::kTest);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes = whole;
    for (int k = 0; k < 3; ++k) {
      bytes[random.Integer(6, static_cast<int64_t>(bytes.size()) - 1)] ^=
          static_cast<char>(1 << random.Integer(0, 7));
    }
    Decode(bytes, {.max_pixels = 1 << 20}).IgnoreError();
  }
}

}  // namespace
}  // namespace tessera
