#include "train/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <utility>

#include "core/status.h"

namespace tessera::train {
namespace {

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table = {};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
    table[byte] = crc;
  }
  return table;
}

template <typename T>
std::string LittleEndian(T value) {
  static_assert(std::endian::native == std::endian::little);
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

// The wire format of protocol buffers: a key (field number and wire type), then the value.
enum class WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string Varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes += static_cast<char>(value);
}

std::string Key(int field, WireType type) {
  return Varint(static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(type));
}

std::string IntField(int field, int64_t value) {
  return Key(field, WireType::kVarint) + Varint(static_cast<uint64_t>(value));
}
std::string DoubleField(int field, double value) {
  return Key(field, WireType::kFixed64) + LittleEndian(value);
}
std::string FloatField(int field, float value) {
  return Key(field, WireType::kFixed32) + LittleEndian(value);
}
std::string BytesField(int field, absl::string_view value) {
  return absl::StrCat(Key(field, WireType::kBytes), Varint(value.size()), value);
}

// Field numbers of Event: wall_time 1, step 2, file_version 3, summary 5, session_log 7.
std::string EncodeEvent(int64_t step, absl::Time now, absl::string_view what) {
  const double wall_time = absl::ToDoubleSeconds(now - absl::UnixEpoch());
  return absl::StrCat(DoubleField(1, wall_time), IntField(2, step), what);
}

std::string EncodeRecord(absl::string_view event) {
  const std::string size = LittleEndian(uint64_t{event.size()});
  return absl::StrCat(size, LittleEndian(MaskedCrc32c(size)), event,
                      LittleEndian(MaskedCrc32c(event)));
}

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 && name[0] != '\0' ? name : "localhost";
}

}  // namespace

uint32_t MaskedCrc32c(absl::string_view data) {
  static constexpr std::array<uint32_t, 256> kTable = MakeCrcTable();
  uint32_t crc = ~uint32_t{0};
  for (const char c : data) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<uint8_t>(c)) & 0xFF];
  return std::rotr(~crc, 15) + 0xA282EAD8u;
}

absl::StatusOr<TensorBoardWriter> TensorBoardWriter::Create(FileSystem& fs,
                                                            const std::string& directory,
                                                            int64_t first_step, absl::Time now) {
  const std::string name = absl::StrFormat("events.out.tfevents.%010d.%s.%d",
                                           absl::ToUnixSeconds(now), HostName(), getpid());
  ASSIGN_OR_RETURN(auto file, fs.OpenWritable(JoinPath(directory, name), WriteMode::kAppend));
  // A session that starts at a step hides what was written for it and later ones.
  const std::string start = BytesField(7, IntField(1, 1));
  RETURN_IF_ERROR(
      file->Append(absl::StrCat(EncodeRecord(EncodeEvent(0, now, BytesField(3, "brain.Event:2"))),
                                EncodeRecord(EncodeEvent(first_step, now, start)))));
  return TensorBoardWriter(std::move(file));
}

absl::Status TensorBoardWriter::Write(int64_t step, absl::Time now,
                                      absl::Span<const Scalar> scalars) {
  std::string values;  // Summary.value 1: tag 1, simple_value 2
  for (const auto& [tag, value] : scalars) {
    absl::StrAppend(&values, BytesField(1, absl::StrCat(BytesField(1, tag),
                                                        FloatField(2, static_cast<float>(value)))));
  }
  return file_->Append(EncodeRecord(EncodeEvent(step, now, BytesField(5, values))));
}

}  // namespace tessera::train
