// JPEG through libjpeg-turbo, whose error state tells truncated and damaged files apart. Its errors
// leave by longjmp, which stays within this file: no frame that a jump crosses holds an object with
// a destructor.
#include <csetjmp>
#include <cstdio>
// jpeglib.h needs cstdio before it.
#include <jerror.h>
#include <jpeglib.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/status.h"
#include "data/decode.h"

namespace tessera {
namespace {

constexpr int kMaxScans =
    500;  // a hostile progressive file may ask for thousands over a large picture
constexpr int kExifMarker = JPEG_APP0 + 1;

// One picture being decoded. The libjpeg structs come first in each manager, so that callbacks find
// the whole.
struct Decoder {
  jpeg_error_mgr errors;
  jpeg_source_mgr source;
  jpeg_progress_mgr progress;
  jpeg_decompress_struct info;
  std::jmp_buf on_error;
  bool truncated;
  char message[JMSG_LENGTH_MAX];  // of the error, or of the first warning

  // What the steps below work on.
  uint8_t* rows;
  int64_t row_bytes;
  uint8_t* cmyk_row;
  JDIMENSION crop_left, crop_width, first_row, num_rows;
};

Decoder* Self(j_common_ptr info) { return static_cast<Decoder*>(info->client_data); }
Decoder* Self(j_decompress_ptr info) { return static_cast<Decoder*>(info->client_data); }

void OnError(j_common_ptr info) {
  info->err->format_message(info, Self(info)->message);
  std::longjmp(Self(info)->on_error, 1);
}

void OnMessage(j_common_ptr info, int level) {
  if (level >= 0) return;
  Decoder* d = Self(info);
  if (info->err->num_warnings++ == 0) info->err->format_message(info, d->message);
  // The picture's end marker in the middle of the entropy-coded data: the rest of the data is
  // missing.
  if (info->err->msg_code == JWRN_HIT_MARKER && d->info.unread_marker == JPEG_EOI) {
    d->truncated = true;
  }
}

boolean OnEndOfData(j_decompress_ptr info) {
  static const JOCTET kEndOfImage[2] = {0xFF, JPEG_EOI};
  Self(info)->truncated = true;
  info->src->next_input_byte = kEndOfImage;
  info->src->bytes_in_buffer = 2;
  return TRUE;
}

void SkipInput(j_decompress_ptr info, long count) {  // NOLINT: the type is libjpeg's
  if (count <= 0) return;
  if (static_cast<size_t>(count) > info->src->bytes_in_buffer) {
    OnEndOfData(info);
    return;
  }
  info->src->next_input_byte += count;
  info->src->bytes_in_buffer -= count;
}

void OnProgress(j_common_ptr info) {
  Decoder* d = Self(info);
  if (d->info.input_scan_number <= kMaxScans) return;
  std::snprintf(d->message, sizeof(d->message), "more than %d scans", kMaxScans);
  std::longjmp(d->on_error, 1);
}

void Init(Decoder* d, absl::Span<const uint8_t> bytes) {
  d->info.err = jpeg_std_error(&d->errors);
  d->errors.error_exit = OnError;
  d->errors.emit_message = OnMessage;
  d->info.client_data = d;
  jpeg_create_decompress(&d->info);
  d->progress.progress_monitor = OnProgress;
  d->info.progress = &d->progress;
  d->source.init_source = [](j_decompress_ptr) {};
  d->source.term_source = [](j_decompress_ptr) {};
  d->source.fill_input_buffer = OnEndOfData;
  d->source.skip_input_data = SkipInput;
  d->source.resync_to_restart = jpeg_resync_to_restart;
  d->source.next_input_byte = bytes.data();
  d->source.bytes_in_buffer = bytes.size();
  d->info.src = &d->source;
}

void ReadHeader(Decoder* d) { jpeg_read_header(&d->info, TRUE); }

// Chooses exact settings: the slow integer IDCT and smooth chroma upsampling are libjpeg's
// defaults.
void Start(Decoder* d) {
  const bool four = d->info.num_components == 4;
  d->info.out_color_space = four ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&d->info);
  if (d->crop_width < d->info.output_width) {
    jpeg_crop_scanline(&d->info, &d->crop_left, &d->crop_width);
  }
}

// Adobe's files, the only CMYK ones in use, store inverted ink; the product rounds like Pillow's.
void CmykToRgb(const uint8_t* cmyk, int64_t width, uint8_t* rgb) {
  for (int64_t x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    const int light = cmyk[3];
    for (int c = 0; c < 3; ++c) {
      const int product = (255 - cmyk[c]) * light + 128;
      rgb[c] = static_cast<uint8_t>(std::clamp(light - ((product + (product >> 8)) >> 8), 0, 255));
    }
  }
}

void ReadRows(Decoder* d) {
  if (d->first_row > 0) jpeg_skip_scanlines(&d->info, d->first_row);
  for (JDIMENSION y = 0; y < d->num_rows; ++y) {
    uint8_t* out = d->rows + y * d->row_bytes;
    JSAMPROW line = d->cmyk_row != nullptr ? d->cmyk_row : out;
    jpeg_read_scanlines(&d->info, &line, 1);
    if (d->cmyk_row != nullptr) CmykToRgb(d->cmyk_row, d->row_bytes / 3, out);
  }
  if (d->info.output_scanline == d->info.output_height) jpeg_finish_decompress(&d->info);
}

// Runs one step; false, with `message` set, when libjpeg gave up in it.
bool Guarded(Decoder* d, void (*step)(Decoder*)) {
  if (setjmp(d->on_error) != 0) return false;
  step(d);
  return true;
}

struct Cleanup {
  Decoder* d;
  ~Cleanup() { jpeg_destroy_decompress(&d->info); }
};

// A file whose remaining data holds no end marker was cut, though the rows that were needed may be
// whole.
bool HasEndMarker(absl::Span<const uint8_t> rest) {
  for (size_t i = rest.size(); i >= 2; --i) {
    if (rest[i - 2] == 0xFF && rest[i - 1] == JPEG_EOI) return true;
  }
  return false;
}

// Orientation (1 to 8) of the EXIF block (CIPA DC-008, TIFF inside APP1); 1 if there is none.
int ExifOrientation(const jpeg_marker_struct* marker) {
  for (; marker != nullptr; marker = marker->next) {
    const absl::Span<const uint8_t> data(marker->data, marker->data_length);
    if (marker->marker != kExifMarker || data.size() < 14) continue;
    if (!std::equal(data.begin(), data.begin() + 6, "Exif\0")) continue;
    const absl::Span<const uint8_t> tiff = data.subspan(6);
    const bool little = tiff[0] == 'I';
    const auto number = [&](size_t at, int bytes) -> uint32_t {
      uint32_t value = 0;
      for (int i = 0; i < bytes && at + bytes <= tiff.size(); ++i) {
        value |= uint32_t{tiff[at + i]} << 8 * (little ? i : bytes - 1 - i);
      }
      return value;
    };
    const size_t directory = number(4, 4);
    const size_t entries = number(directory, 2);
    for (size_t i = 0; i < entries; ++i) {
      const size_t entry = directory + 2 + 12 * i;
      if (number(entry, 2) != 0x0112) continue;
      const int orientation = static_cast<int>(number(entry + 8, 2));
      return orientation >= 1 && orientation <= 8 ? orientation : 1;
    }
  }
  return 1;
}

// Turns a picture stored with this orientation upright.
Image Upright(const Image& stored, int orientation) {
  const bool transposed = orientation >= 5;
  const bool flip_rows =
      orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  const bool flip_columns =
      orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  Image out(transposed ? stored.width() : stored.height(),
            transposed ? stored.height() : stored.width());
  for (int64_t y = 0; y < out.height(); ++y) {
    for (int64_t x = 0; x < out.width(); ++x) {
      const int64_t v = flip_rows ? out.height() - 1 - y : y;
      const int64_t u = flip_columns ? out.width() - 1 - x : x;
      std::copy_n(transposed ? stored.row(u) + 3 * v : stored.row(v) + 3 * u, 3,
                  out.row(y) + 3 * x);
    }
  }
  return out;
}

absl::Status Failed(const Decoder& d) {
  return BadFileError(d.truncated ? BadFile::kTruncated : BadFile::kCorrupt, d.message);
}

// Widens the region to whole blocks and one more on each side: chroma upsampling looks at
// neighbours.
void ChooseRows(Decoder* d, const Rect& region) {
  const int64_t block_w = d->info.max_h_samp_factor * DCTSIZE;
  const int64_t block_h = d->info.max_v_samp_factor * DCTSIZE;
  const int64_t left = std::max<int64_t>(0, (region.left / block_w - 1) * block_w);
  const int64_t top = std::max<int64_t>(0, (region.top / block_h - 1) * block_h);
  const int64_t right =
      std::min<int64_t>(d->info.image_width, region.left + region.width + 2 * block_w);
  const int64_t bottom =
      std::min<int64_t>(d->info.image_height, region.top + region.height + block_h);
  d->crop_left = static_cast<JDIMENSION>(left);
  d->crop_width = static_cast<JDIMENSION>(right - left);
  d->first_row = static_cast<JDIMENSION>(top);
  d->num_rows = static_cast<JDIMENSION>(bottom - top);
}

}  // namespace

absl::StatusOr<DecodedImage> internal::DecodeJpeg(absl::Span<const uint8_t> bytes,
                                                  const DecodeOptions& options) {
  Decoder d = {};
  Init(&d, bytes);
  const Cleanup cleanup{&d};
  if (options.exif_rotate) jpeg_save_markers(&d.info, kExifMarker, 0xFFFF);
  if (!Guarded(&d, ReadHeader)) return Failed(d);
  DecodedImage result;
  result.height = d.info.image_height;
  result.width = d.info.image_width;
  RETURN_IF_ERROR(CheckImageSize(result.height, result.width, options));
  const int orientation = options.exif_rotate ? ExifOrientation(d.info.marker_list) : 1;
  Rect region{0, 0, result.height, result.width};
  if (options.region && orientation == 1) region = options.region(result.height, result.width);
  ChooseRows(&d, region);
  const absl::Span<const uint8_t> rest(d.source.next_input_byte, d.source.bytes_in_buffer);
  if (!Guarded(&d, Start)) return Failed(d);

  result.pixels = Image(d.num_rows, d.info.output_width);
  result.covers = {d.first_row, d.crop_left, d.num_rows, d.info.output_width};
  std::vector<uint8_t> cmyk_row;
  if (d.info.output_components == 4) {
    cmyk_row.resize(4 * result.pixels.width());
    d.cmyk_row = cmyk_row.data();
  }
  d.rows = result.pixels.data();
  d.row_bytes = 3 * result.pixels.width();
  if (!Guarded(&d, ReadRows)) return Failed(d);
  if (d.truncated || !HasEndMarker(rest)) {
    return BadFileError(BadFile::kTruncated, "the JPEG data ends before the picture does");
  }
  if (d.errors.num_warnings > 0) {
    result.damaged = true;
    result.warning = d.message;
  }
  if (orientation != 1) {
    result.pixels = Upright(result.pixels, orientation);
    result.height = result.pixels.height();
    result.width = result.pixels.width();
    result.covers = {0, 0, result.height, result.width};
  }
  return result;
}

}  // namespace tessera
