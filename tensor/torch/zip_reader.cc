#include "tensor/torch/zip_reader.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "core/status.h"

namespace tessera {
namespace {

constexpr int64_t kEndBytes = 22;
constexpr int64_t kMaxCommentBytes = 65535;
constexpr int64_t kEnd64LocatorBytes = 20;
constexpr int64_t kEnd64Bytes = 56;
constexpr int64_t kEntryBytes = 46;
constexpr int64_t kLocalHeaderBytes = 30;
constexpr int64_t kMaxDirectoryBytes = int64_t{256} << 20;
constexpr uint32_t kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64LocatorSignature = 0x07064b50;
constexpr uint32_t kEnd64Signature = 0x06064b50;
constexpr uint32_t kEntrySignature = 0x02014b50;
constexpr uint32_t kLocalHeaderSignature = 0x04034b50;
// Stand for a number that is in the ZIP64 field.
constexpr uint64_t kElsewhere16 = 0xFFFF;
constexpr uint64_t kElsewhere32 = 0xFFFFFFFF;
constexpr uint16_t kZip64Field = 1;

// The little-endian number of type T at byte `at`, which must be there.
template <typename T>
T NumberAt(absl::string_view bytes, int64_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

absl::StatusOr<std::string> ReadRange(const ReadableFile& file, uint64_t offset, uint64_t count,
                                      absl::string_view what) {
  const auto size = static_cast<uint64_t>(file.bytes());
  if (offset > size || count > size - offset) {
    return DataError(absl::StrFormat("%s: %d bytes at %d, the file has %d; is it cut off?", what,
                                     count, offset, size));
  }
  std::string bytes(count, '\0');
  RETURN_IF_ERROR(
      file.ReadAt(static_cast<int64_t>(offset), static_cast<int64_t>(count), bytes.data()));
  return bytes;
}

// Where the directory is.
struct Directory {
  uint64_t entries = 0;
  uint64_t bytes = 0;
  uint64_t offset = 0;
};

// The directory that the ZIP64 record before the end record tells.
absl::StatusOr<Directory> FindDirectory64(const ReadableFile& file, int64_t end_offset) {
  const int64_t locator_offset = end_offset - kEnd64LocatorBytes;
  if (locator_offset < 0) return DataError("the ZIP64 record is missing");
  ASSIGN_OR_RETURN(const std::string locator, ReadRange(file, static_cast<uint64_t>(locator_offset),
                                                        kEnd64LocatorBytes, "ZIP64 locator"));
  if (NumberAt<uint32_t>(locator, 0) != kEnd64LocatorSignature) {
    return DataError("the ZIP64 record is missing");
  }
  ASSIGN_OR_RETURN(const std::string end,
                   ReadRange(file, NumberAt<uint64_t>(locator, 8), kEnd64Bytes, "ZIP64 record"));
  if (NumberAt<uint32_t>(end, 0) != kEnd64Signature) {
    return DataError("the ZIP64 record is damaged");
  }
  return Directory{NumberAt<uint64_t>(end, 32), NumberAt<uint64_t>(end, 40),
                   NumberAt<uint64_t>(end, 48)};
}

absl::StatusOr<Directory> FindDirectory(const ReadableFile& file) {
  const int64_t tail_bytes = std::min(file.bytes(), kEndBytes + kMaxCommentBytes);
  ASSIGN_OR_RETURN(const std::string tail,
                   ReadRange(file, static_cast<uint64_t>(file.bytes() - tail_bytes),
                             static_cast<uint64_t>(tail_bytes), "end"));
  for (int64_t at = tail_bytes - kEndBytes; at >= 0; --at) {
    if (NumberAt<uint32_t>(tail, at) != kEndSignature) continue;
    const Directory found = {NumberAt<uint16_t>(tail, at + 10), NumberAt<uint32_t>(tail, at + 12),
                             NumberAt<uint32_t>(tail, at + 16)};
    if (NumberAt<uint16_t>(tail, at + 4) != 0 && NumberAt<uint16_t>(tail, at + 4) != kElsewhere16) {
      return DataError("the archive has several volumes");
    }
    if (found.entries == kElsewhere16 || found.bytes == kElsewhere32 ||
        found.offset == kElsewhere32) {
      return FindDirectory64(file, file.bytes() - tail_bytes + at);
    }
    return found;
  }
  return DataError("the archive's directory, which stands at its end, is missing: is it cut off?");
}

// Takes the next of the ZIP64 numbers in place of one that is elsewhere; false if there is none.
bool Resolve(uint64_t* number, absl::string_view* field) {
  if (*number != kElsewhere32) return true;
  if (field->size() < 8) return false;
  *number = NumberAt<uint64_t>(*field, 0);
  field->remove_prefix(8);
  return true;
}

// The ZIP64 numbers among the extra fields; empty if there are none.
absl::string_view Zip64Field(absl::string_view extra) {
  while (extra.size() >= 4) {
    const size_t size = NumberAt<uint16_t>(extra, 2);
    if (size > extra.size() - 4) return {};
    if (NumberAt<uint16_t>(extra, 0) == kZip64Field) return extra.substr(4, size);
    extra.remove_prefix(4 + size);
  }
  return {};
}

// Reads the entry at the start of `directory` and takes it off.
absl::StatusOr<ZipMember> ReadEntry(const ReadableFile& file, absl::string_view* directory) {
  const absl::string_view entry = *directory;
  if (entry.size() < kEntryBytes || NumberAt<uint32_t>(entry, 0) != kEntrySignature) {
    return DataError("the archive's directory is damaged");
  }
  const size_t name_bytes = NumberAt<uint16_t>(entry, 28);
  const size_t extra_bytes = NumberAt<uint16_t>(entry, 30);
  const size_t all_bytes = kEntryBytes + name_bytes + extra_bytes + NumberAt<uint16_t>(entry, 32);
  if (all_bytes > entry.size()) return DataError("the archive's directory is damaged");
  directory->remove_prefix(all_bytes);

  ZipMember member;
  member.name = std::string(entry.substr(kEntryBytes, name_bytes));
  const std::string what =
      absl::StrFormat("member '%s'", absl::Utf8SafeCHexEscape(member.name.substr(0, 200)));
  const bool is_encrypted = (NumberAt<uint16_t>(entry, 8) & 1) != 0;
  member.is_stored = !is_encrypted && NumberAt<uint16_t>(entry, 10) == 0;
  uint64_t packed = NumberAt<uint32_t>(entry, 20), bytes = NumberAt<uint32_t>(entry, 24),
           header_offset = NumberAt<uint32_t>(entry, 42);
  absl::string_view zip64 = Zip64Field(entry.substr(kEntryBytes + name_bytes, extra_bytes));
  if (!Resolve(&bytes, &zip64) || !Resolve(&packed, &zip64) || !Resolve(&header_offset, &zip64)) {
    return DataError(what + ": the ZIP64 sizes are missing");
  }
  if (member.is_stored && packed != bytes) {
    return DataError(what + ": two sizes that differ, though it is stored");
  }
  // The local header may have other extra fields than the directory.
  ASSIGN_OR_RETURN(const std::string header,
                   ReadRange(file, header_offset, kLocalHeaderBytes, what));
  if (NumberAt<uint32_t>(header, 0) != kLocalHeaderSignature) {
    return DataError(what + ": its header is damaged");
  }
  const uint64_t offset = header_offset + kLocalHeaderBytes + NumberAt<uint16_t>(header, 26) +
                          NumberAt<uint16_t>(header, 28);
  const auto size = static_cast<uint64_t>(file.bytes());
  if (offset > size || packed > size - offset) {
    return DataError(absl::StrFormat("%s: %d bytes at %d, the file has %d; is it cut off?", what,
                                     packed, offset, size));
  }
  member.offset = static_cast<int64_t>(offset);
  member.bytes = static_cast<int64_t>(bytes);
  return member;
}

}  // namespace

absl::StatusOr<std::vector<ZipMember>> ReadZipDirectory(const ReadableFile& file) {
  ASSIGN_OR_RETURN(const Directory place, FindDirectory(file));
  if (place.bytes > kMaxDirectoryBytes || place.entries > place.bytes / kEntryBytes) {
    return DataError(absl::StrFormat("the archive's directory has %d entries in %d bytes",
                                     place.entries, place.bytes));
  }
  ASSIGN_OR_RETURN(const std::string bytes,
                   ReadRange(file, place.offset, place.bytes, "the archive's directory"));
  absl::string_view rest = bytes;
  std::vector<ZipMember> members;
  for (uint64_t i = 0; i < place.entries; ++i) {
    ASSIGN_OR_RETURN(ZipMember member, ReadEntry(file, &rest));
    members.push_back(std::move(member));
  }
  return members;
}

}  // namespace tessera
