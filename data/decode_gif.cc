// First frame of a GIF (CompuServe, "Graphics Interchange Format, version 89a", 1990).
#include <algorithm>
#include <array>
#include <vector>

#include "core/status.h"
#include "data/decode.h"

namespace tessera {
namespace {

constexpr int kMaxCodes = 4096;

// Bounds-checked reading; a read past the end returns zeros and sets `past_end`.
struct Reader {
  absl::Span<const uint8_t> bytes;
  size_t at = 0;
  bool past_end = false;

  uint8_t Byte() {
    if (at >= bytes.size()) {
      past_end = true;
      return 0;
    }
    return bytes[at++];
  }
  int Word() {
    const int low = Byte();
    return low | Byte() << 8;
  }
  void Skip(size_t count) {
    past_end |= count > bytes.size() - at;
    at = std::min(bytes.size(), at + count);
  }
  void SkipBlocks() {
    while (const uint8_t length = Byte()) Skip(length);
  }
  // The table's bytes, or none if the file ends before.
  absl::Span<const uint8_t> ColorTable(int flags) {
    const size_t size = 3 * (size_t{2} << (flags & 7));
    const absl::Span<const uint8_t> table = bytes.subspan(at, size);
    Skip(size);
    return table.size() == size ? table : absl::Span<const uint8_t>();
  }
};

// Variable-length codes from the sub-blocks of a frame, least significant bit first.
class CodeReader {
 public:
  explicit CodeReader(Reader* reader) : reader_(reader) {}

  // -1 at the end of the data.
  int Next(int bits) {
    while (num_bits_ < bits) {
      if (block_left_ == 0 && (block_left_ = reader_->Byte()) == 0) return -1;
      buffer_ |= uint32_t{reader_->Byte()} << num_bits_;
      --block_left_;
      num_bits_ += 8;
    }
    const int code = static_cast<int>(buffer_ & ((1u << bits) - 1));
    buffer_ >>= bits;
    num_bits_ -= bits;
    return code;
  }

 private:
  Reader* reader_;
  uint32_t buffer_ = 0;
  int num_bits_ = 0;
  int block_left_ = 0;
};

// LZW: fills `indices` and returns how many of them the data held.
size_t DecodeLzw(Reader* reader, std::vector<uint8_t>* indices) {
  const int min_bits = reader->Byte();
  if (min_bits < 1 || min_bits > 8) return 0;
  const int clear = 1 << min_bits;
  std::array<int16_t, kMaxCodes> prefix;
  std::array<uint8_t, kMaxCodes> suffix;
  std::array<uint8_t, kMaxCodes + 1> stack;
  CodeReader codes(reader);
  int bits = min_bits + 1;
  int next = clear + 2;
  int previous = -1;
  uint8_t first = 0;
  size_t written = 0;
  while (written < indices->size()) {
    const int code = codes.Next(bits);
    if (code < 0 || code == clear + 1 || reader->past_end) break;
    if (code == clear) {
      bits = min_bits + 1;
      next = clear + 2;
      previous = -1;
      continue;
    }
    if (code > next || (code == next && previous < 0) || (previous < 0 && code > clear)) break;
    int depth = 0;
    int walk = code;
    if (code == next) {
      stack[depth++] = first;
      walk = previous;
    }
    for (; walk >= clear; walk = prefix[walk]) stack[depth++] = suffix[walk];
    first = static_cast<uint8_t>(walk);
    stack[depth++] = first;
    if (previous >= 0 && next < kMaxCodes) {
      prefix[next] = static_cast<int16_t>(previous);
      suffix[next] = first;
      if (++next == 1 << bits && bits < 12) ++bits;
    }
    previous = code;
    while (depth > 0 && written < indices->size()) (*indices)[written++] = stack[--depth];
  }
  return written;
}

// The row that the n-th stored row of an interlaced frame belongs to.
std::vector<int64_t> InterlacedRows(int64_t height) {
  std::vector<int64_t> rows;
  for (const auto& [start, step] : {std::pair{0, 8}, {4, 8}, {2, 4}, {1, 2}}) {
    for (int64_t y = start; y < height; y += step) rows.push_back(y);
  }
  return rows;
}

absl::Status Ends() {
  return BadFileError(BadFile::kTruncated, "the file ends inside the first GIF frame");
}

}  // namespace

absl::StatusOr<DecodedImage> internal::DecodeGif(absl::Span<const uint8_t> bytes,
                                                 const DecodeOptions& options) {
  Reader reader{bytes, 6};
  DecodedImage result;
  result.width = reader.Word();
  result.height = reader.Word();
  const int screen_flags = reader.Byte();
  const int background = reader.Byte();
  reader.Byte();  // pixel aspect ratio
  if (reader.past_end) return Ends();
  RETURN_IF_ERROR(CheckImageSize(result.height, result.width, options));
  absl::Span<const uint8_t> colors;
  if (screen_flags & 0x80) colors = reader.ColorTable(screen_flags);
  uint8_t block = reader.Byte();
  for (; block == 0x21 && !reader.past_end; block = reader.Byte()) {
    reader.Byte();  // kind of extension
    reader.SkipBlocks();
  }
  if (reader.past_end) return Ends();
  if (block != 0x2C) return BadFileError(BadFile::kCorrupt, "the GIF has no frame");
  Rect frame;
  frame.left = reader.Word();
  frame.top = reader.Word();
  frame.width = reader.Word();
  frame.height = reader.Word();
  const int frame_flags = reader.Byte();
  absl::Span<const uint8_t> screen_colors = colors;
  if (frame_flags & 0x80) colors = reader.ColorTable(frame_flags);
  if (reader.past_end) return Ends();
  if (colors.empty() || frame.left + frame.width > result.width ||
      frame.top + frame.height > result.height) {
    return BadFileError(BadFile::kCorrupt, "the GIF frame has no colours or leaves the screen");
  }
  std::vector<uint8_t> indices(frame.width * frame.height);
  if (DecodeLzw(&reader, &indices) < indices.size()) return Ends();

  result.pixels = Image(result.height, result.width);
  result.covers = {0, 0, result.height, result.width};
  const auto color = [](absl::Span<const uint8_t> table, size_t index, uint8_t* rgb) {
    for (size_t c = 0; c < 3; ++c) rgb[c] = 3 * index + c < table.size() ? table[3 * index + c] : 0;
  };
  for (int64_t i = 0; i < result.height * result.width; ++i) {
    color(screen_colors, background, result.pixels.data() + 3 * i);
  }
  const bool interlaced = frame_flags & 0x40;
  const std::vector<int64_t> rows =
      interlaced ? InterlacedRows(frame.height) : std::vector<int64_t>();
  for (int64_t y = 0; y < frame.height; ++y) {
    uint8_t* out = result.pixels.row(frame.top + (interlaced ? rows[y] : y)) + 3 * frame.left;
    for (int64_t x = 0; x < frame.width; ++x) {
      color(colors, indices[y * frame.width + x], out + 3 * x);
    }
  }
  return result;
}

}  // namespace tessera
