// Any bytes as a picture file. A part that is asked for has the pixels of the whole picture.
#include <algorithm>
#include <opencv2/imgcodecs.hpp>

#include "data/decode.h"
#include "tests/fuzz/fuzz.h"

namespace tessera::fuzz {
namespace {

constexpr int64_t kMaxPixels = 1 << 16;

std::string Encoded(const std::string& extension, int height, int width, int type,
                    const std::vector<int>& parameters = {}) {
  cv::Mat picture(height, width, type);
  cv::randu(picture, 0, 255);
  std::vector<uint8_t> bytes;
  CHECK(cv::imencode(extension, picture, bytes, parameters));
  return std::string(bytes.begin(), bytes.end());
}

void CheckRegion(absl::Span<const uint8_t> bytes, const DecodedImage& whole) {
  const Rect part{whole.height / 3, whole.width / 4, (whole.height + 1) / 2, (whole.width + 1) / 2};
  DecodeOptions options{.max_pixels = kMaxPixels};
  options.region = [&](int64_t, int64_t) { return part; };
  const absl::StatusOr<DecodedImage> image = DecodeImage(bytes, options);
  if (!image.ok() || whole.damaged) return;
  const Rect& covers = image->covers;
  for (int64_t y = part.top; y < part.top + part.height; ++y) {
    const uint8_t* got = image->pixels.row(y - covers.top) + 3 * (part.left - covers.left);
    CHECK(std::equal(got, got + 3 * part.width, whole.pixels.row(y) + 3 * part.left)) << y;
  }
}

}  // namespace

std::vector<std::string> Seeds() {
  const std::string jpeg = Encoded(".jpg", 17, 19, CV_8UC3);
  const std::string exif(
      "\xFF\xE1\0\x22"
      "Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0",
      36);
  const std::string gif(
      "GIF89a\x02\0\x02\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x02\0\x02\0\0\x02\x02\x44\x0a\0;", 34);
  return {
      jpeg,
      jpeg.substr(0, 2) + exif + jpeg.substr(2),
      Encoded(".jpg", 40, 24, CV_8UC3, {cv::IMWRITE_JPEG_PROGRESSIVE, 1}),
      Encoded(".jpg", 9, 9, CV_8UC1, {cv::IMWRITE_JPEG_RST_INTERVAL, 1}),
      Encoded(".png", 5, 7, CV_8UC3),
      Encoded(".png", 5, 7, CV_16UC3),
      Encoded(".png", 6, 3, CV_8UC4),
      Encoded(".png", 9, 9, CV_8UC1),
      Encoded(".webp", 6, 5, CV_8UC3),
      Encoded(".webp", 6, 5, CV_8UC3, {cv::IMWRITE_WEBP_QUALITY, 101}),
      Encoded(".bmp", 3, 5, CV_8UC3),
      gif,
      "RIFF(",
  };
}

}  // namespace tessera::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;  // NOLINT: the whole of a test
  const absl::Span<const uint8_t> bytes(data, size);
  const absl::StatusOr<DecodedImage> image = DecodeImage(bytes, {.max_pixels = fuzz::kMaxPixels});
  if (!image.ok()) {
    CHECK(absl::IsDataLoss(image.status())) << image.status();
    CHECK(BadFileKind(image.status()) != BadFile::kUnreadable) << image.status();
    return 0;
  }
  CHECK(image->height * image->width <= fuzz::kMaxPixels);
  CHECK(image->pixels.height() == image->height && image->pixels.width() == image->width);
  fuzz::CheckRegion(bytes, *image);
  (void)DecodeImage(bytes, {.exif_rotate = true, .max_pixels = fuzz::kMaxPixels});
  return 0;
}
