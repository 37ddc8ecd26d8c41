#include "data/decode.h"

#include <algorithm>
#include <array>
#include <exception>
#include <mutex>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "core/status.h"

namespace tessera {
namespace {

constexpr absl::string_view kKindPayload = "tessera/bad-file";
constexpr std::array<absl::string_view, kNumBadFileKinds> kKindNames = {
    "unreadable", "empty", "unrecognised", "truncated", "corrupt", "too large"};
constexpr std::array<absl::string_view, kNumImageFormats> kFormatNames = {"jpeg", "png", "gif",
                                                                          "webp", "bmp", "unknown"};

absl::string_view AsText(absl::Span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

uint32_t BigEndian32(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | p[3];
}

uint32_t LittleEndian(const uint8_t* p, int bytes) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) value |= uint32_t{p[i]} << (8 * i);
  return value;
}

struct Size {
  int64_t height = 0;
  int64_t width = 0;
};

absl::Status Truncated(absl::string_view what) {
  return BadFileError(BadFile::kTruncated, absl::StrCat("the file ends inside ", what));
}

// Walks the chunks, so that a file cut anywhere is told from a whole one.
absl::StatusOr<Size> PngSize(absl::Span<const uint8_t> bytes) {
  if (bytes.size() < 33) return Truncated("the PNG header");
  const Size size{BigEndian32(&bytes[20]), BigEndian32(&bytes[16])};
  size_t at = 8;
  while (true) {
    if (bytes.size() - at < 12) return Truncated("the PNG chunks");
    const uint32_t length = BigEndian32(&bytes[at]);
    if (bytes.size() - at - 12 < length) return Truncated("a PNG chunk");
    if (AsText(bytes.subspan(at + 4, 4)) == "IEND") return size;
    at += 12 + size_t{length};
  }
}

absl::StatusOr<Size> WebpSize(absl::Span<const uint8_t> bytes) {
  if (bytes.size() < 30) return Truncated("the WebP header");
  if (LittleEndian(&bytes[4], 4) > bytes.size() - 8) return Truncated("the WebP chunks");
  const absl::string_view chunk = AsText(bytes.subspan(12, 4));
  if (chunk == "VP8X") {
    return Size{LittleEndian(&bytes[27], 3) + int64_t{1}, LittleEndian(&bytes[24], 3) + int64_t{1}};
  }
  if (chunk == "VP8L") {
    const uint32_t packed = LittleEndian(&bytes[21], 4);
    return Size{(packed >> 14 & 0x3FFF) + int64_t{1}, (packed & 0x3FFF) + int64_t{1}};
  }
  return Size{LittleEndian(&bytes[28], 2) & 0x3FFF, LittleEndian(&bytes[26], 2) & 0x3FFF};
}

absl::StatusOr<Size> BmpSize(absl::Span<const uint8_t> bytes) {
  if (bytes.size() < 26) return Truncated("the BMP header");
  if (LittleEndian(&bytes[2], 4) > bytes.size()) return Truncated("the BMP pixels");
  if (LittleEndian(&bytes[14], 4) == 12) {
    return Size{LittleEndian(&bytes[20], 2), LittleEndian(&bytes[18], 2)};
  }
  const auto height = static_cast<int32_t>(LittleEndian(&bytes[22], 4));
  return Size{std::abs(int64_t{height}), static_cast<int32_t>(LittleEndian(&bytes[18], 4))};
}

// OpenCV's codecs, after the size has been checked by our own reading of the header.
absl::StatusOr<DecodedImage> DecodeWithOpenCv(absl::Span<const uint8_t> bytes, ImageFormat format,
                                              Size size) {
  cv::Mat bgr;
  try {
    static std::once_flag single_threaded;
    std::call_once(single_threaded, [] { cv::setNumThreads(0); });
    const cv::Mat input(1, static_cast<int>(bytes.size()), CV_8U,
                        const_cast<uint8_t*>(bytes.data()));
    bgr = cv::imdecode(input, cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION);
  } catch (const std::exception& e) {
    return BadFileError(BadFile::kCorrupt, e.what());
  }
  if (bgr.empty() || bgr.type() != CV_8UC3) {
    return BadFileError(BadFile::kCorrupt,
                        absl::StrCat("the ", Name(format), " data does not decode"));
  }
  if (bgr.rows != size.height || bgr.cols != size.width) {
    return BadFileError(BadFile::kCorrupt,
                        absl::StrFormat("the header says %dx%d, the data has %dx%d", size.height,
                                        size.width, bgr.rows, bgr.cols));
  }
  DecodedImage result;
  result.pixels = Image(bgr.rows, bgr.cols);
  cv::Mat rgb(bgr.rows, bgr.cols, CV_8UC3, result.pixels.data());
  cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
  result.height = bgr.rows;
  result.width = bgr.cols;
  result.covers = {0, 0, bgr.rows, bgr.cols};
  return result;
}

absl::StatusOr<DecodedImage> DecodeAs(ImageFormat format, absl::Span<const uint8_t> bytes,
                                      const DecodeOptions& options) {
  if (format == ImageFormat::kJpeg) return internal::DecodeJpeg(bytes, options);
  if (format == ImageFormat::kGif) return internal::DecodeGif(bytes, options);
  ASSIGN_OR_RETURN(const Size size, format == ImageFormat::kPng    ? PngSize(bytes)
                                    : format == ImageFormat::kWebp ? WebpSize(bytes)
                                                                   : BmpSize(bytes));
  RETURN_IF_ERROR(internal::CheckImageSize(size.height, size.width, options));
  return DecodeWithOpenCv(bytes, format, size);
}

}  // namespace

absl::string_view Name(BadFile kind) { return kKindNames[static_cast<int>(kind)]; }
absl::string_view Name(ImageFormat format) { return kFormatNames[static_cast<int>(format)]; }

absl::Status BadFileError(BadFile kind, absl::string_view message) {
  absl::Status status = DataError(absl::StrCat(Name(kind), ": ", message));
  status.SetPayload(kKindPayload, absl::Cord(Name(kind)));
  return status;
}

BadFile BadFileKind(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kKindPayload);
  if (!payload.has_value()) return BadFile::kUnreadable;
  const auto it = std::find(kKindNames.begin(), kKindNames.end(), std::string(*payload));
  return static_cast<BadFile>(it - kKindNames.begin());
}

ImageFormat SniffFormat(absl::Span<const uint8_t> bytes) {
  const absl::string_view text = AsText(bytes.subspan(0, std::min<size_t>(bytes.size(), 16)));
  if (absl::StartsWith(text, "\xFF\xD8\xFF")) return ImageFormat::kJpeg;
  if (absl::StartsWith(text, "\x89PNG\r\n\x1A\n")) return ImageFormat::kPng;
  if (absl::StartsWith(text, "GIF87a") || absl::StartsWith(text, "GIF89a"))
    return ImageFormat::kGif;
  if (absl::StartsWith(text, "RIFF") && text.size() >= 12 && text.substr(8, 4) == "WEBP")
    return ImageFormat::kWebp;
  if (absl::StartsWith(text, "BM")) return ImageFormat::kBmp;
  return ImageFormat::kUnknown;
}

absl::Status internal::CheckImageSize(int64_t height, int64_t width, const DecodeOptions& options) {
  if (height <= 0 || width <= 0) {
    return BadFileError(BadFile::kCorrupt,
                        absl::StrFormat("a picture of %dx%d pixels", height, width));
  }
  if (height > options.max_pixels / width) {
    return BadFileError(BadFile::kTooLarge, absl::StrFormat("%dx%d pixels, the limit is %d in all",
                                                            height, width, options.max_pixels));
  }
  return absl::OkStatus();
}

absl::StatusOr<DecodedImage> DecodeImage(absl::Span<const uint8_t> bytes,
                                         const DecodeOptions& options) {
  if (bytes.empty()) return BadFileError(BadFile::kEmpty, "the file has no bytes");
  const ImageFormat format = SniffFormat(bytes);
  if (format == ImageFormat::kUnknown) {
    return BadFileError(BadFile::kUnrecognised, "no JPEG, PNG, GIF, WebP or BMP picture");
  }
  ASSIGN_OR_RETURN(DecodedImage result, DecodeAs(format, bytes, options));
  result.format = format;
  return result;
}

}  // namespace tessera
