// Decoding of picture files to 8-bit RGB, the way that Pillow-based reference pipelines see them.
//
// Contents choose the codec, never the file's name: JPEG (libjpeg-turbo), GIF (first frame), PNG,
// WebP and BMP (OpenCV). Gray is replicated to three channels, palettes are expanded, alpha is
// dropped, of 16 bits the high byte is kept, CMYK becomes RGB. EXIF orientation is ignored unless
// asked for.
#ifndef TESSERA_DATA_DECODE_H_
#define TESSERA_DATA_DECODE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "data/image.h"

namespace tessera {

// Why a picture can not be used.
enum class BadFile {
  kUnreadable,    // the file system failed: missing, no permission, I/O error
  kEmpty,         // no bytes
  kUnrecognised,  // no known picture format
  kTruncated,     // the decoder reached the end of the data
  kCorrupt,       // the decoder gave up
  kTooLarge,      // more pixels than DecodeOptions::max_pixels
};
inline constexpr int kNumBadFileKinds = 6;
absl::string_view Name(BadFile kind);

// An error that remembers its kind, and the kind of such an error (kUnreadable for any other).
absl::Status BadFileError(BadFile kind, absl::string_view message);
BadFile BadFileKind(const absl::Status& status);

enum class ImageFormat { kJpeg, kPng, kGif, kWebp, kBmp, kUnknown };
inline constexpr int kNumImageFormats = 6;
absl::string_view Name(ImageFormat format);
// By the first bytes alone.
ImageFormat SniffFormat(absl::Span<const uint8_t> bytes);

struct DecodeOptions {
  bool exif_rotate = false;          // turn the picture upright as its EXIF tag says (JPEG)
  int64_t max_pixels = 178'956'970;  // guard against decompression bombs, checked before decoding
  // If set, called once with the picture's size; only the returned part has to be decoded, which
  // saves most of the work on a JPEG. Must lie inside the picture. Not called when a rotation
  // applies.
  std::function<Rect(int64_t height, int64_t width)> region = nullptr;
};

struct DecodedImage {
  Image pixels;
  // What `pixels` covers of the whole picture: at least the region asked for. Inside the region the
  // pixels are the same bits that decoding the whole picture gives; around it they need not be.
  Rect covers;
  int64_t height = 0;  // of the whole picture
  int64_t width = 0;
  ImageFormat format = ImageFormat::kUnknown;
  bool damaged = false;  // decoded whole, but the codec complained
  std::string warning;   // what it said first
};

// Decodes one picture. Errors are BadFileErrors. Thread-safe.
absl::StatusOr<DecodedImage> DecodeImage(absl::Span<const uint8_t> bytes,
                                         const DecodeOptions& options = {});

namespace internal {
// The codecs behind DecodeImage; `bytes` starts with the format's signature.
absl::StatusOr<DecodedImage> DecodeJpeg(absl::Span<const uint8_t> bytes,
                                        const DecodeOptions& options);
absl::StatusOr<DecodedImage> DecodeGif(absl::Span<const uint8_t> bytes,
                                       const DecodeOptions& options);
// Error if a picture of this size is empty or above options.max_pixels.
absl::Status CheckImageSize(int64_t height, int64_t width, const DecodeOptions& options);
}  // namespace internal

}  // namespace tessera

#endif  // TESSERA_DATA_DECODE_H_
