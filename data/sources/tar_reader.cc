#include "data/sources/tar_reader.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "core/status.h"

namespace tessera::internal {
namespace {

constexpr int64_t kBlock = 512;
constexpr int64_t kMaxExtensionBytes = 1 << 20;  // of a long name or of PAX records
// Between small members the data is read over, between large ones it is jumped over.
constexpr int64_t kSmallMember = 16 << 10;
constexpr int64_t kLargeWindow = 256 << 10;

int64_t RoundUp(int64_t bytes) { return (bytes + kBlock - 1) / kBlock * kBlock; }

// Text up to its first zero byte.
absl::string_view Text(absl::string_view field) { return field.substr(0, field.find('\0')); }

// Octal digits, or base 256 with the top bit set for large values; -1 for anything else.
int64_t Number(absl::string_view field) {
  int64_t value = 0;
  if (static_cast<unsigned char>(field[0]) & 0x80) {
    value = field[0] & 0x7F;
    for (const char c : field.substr(1)) {
      if (value >> 54 != 0) return -1;
      value = value << 8 | static_cast<unsigned char>(c);
    }
    return value;
  }
  field = absl::StripAsciiWhitespace(Text(field));
  for (const char c : field) {
    if (c < '0' || c > '7' || value >> 59 != 0) return -1;
    value = value << 3 | (c - '0');
  }
  return value;
}

bool ChecksumMatches(absl::string_view header) {
  int64_t as_unsigned = 0;
  int64_t as_signed = 0;
  for (size_t i = 0; i < header.size(); ++i) {
    const char c = i >= 148 && i < 156 ? ' ' : header[i];
    as_unsigned += static_cast<unsigned char>(c);
    as_signed += static_cast<signed char>(c);
  }
  const int64_t expected = Number(header.substr(148, 8));
  return expected == as_unsigned || expected == as_signed;
}

std::string HeaderName(absl::string_view header) {
  const absl::string_view name = Text(header.substr(0, 100));
  const absl::string_view prefix = Text(header.substr(345, 155));
  const bool posix = header.substr(257, 6) == absl::string_view("ustar\0", 6);
  return posix && !prefix.empty() ? absl::StrCat(prefix, "/", name) : std::string(name);
}

// What extension headers say about the member that follows them.
struct Overrides {
  std::optional<std::string> name;
  std::optional<int64_t> bytes;
};

// PAX records "LENGTH KEY=VALUE\n"; false if they are malformed.
bool ReadPaxRecords(absl::string_view records, Overrides* overrides) {
  while (!records.empty()) {
    const size_t space = records.find(' ');
    size_t length = 0;
    if (space == absl::string_view::npos || !absl::SimpleAtoi(records.substr(0, space), &length) ||
        length <= space + 1 || length > records.size()) {
      return false;
    }
    absl::string_view record = records.substr(space + 1, length - space - 1);
    records.remove_prefix(length);
    absl::ConsumeSuffix(&record, "\n");
    if (absl::ConsumePrefix(&record, "path=")) overrides->name = std::string(record);
    int64_t bytes = 0;
    if (absl::ConsumePrefix(&record, "size=")) {
      if (!absl::SimpleAtoi(record, &bytes) || bytes < 0) return false;
      overrides->bytes = bytes;
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<absl::string_view> TarReader::Bytes(int64_t offset, int64_t count) {
  const int64_t window_end = window_begin_ + static_cast<int64_t>(window_.size());
  if (offset < window_begin_ || offset + count > window_end) {
    const int64_t wanted = last_bytes_ < kSmallMember ? std::max(count, kLargeWindow) : count;
    window_.resize(std::min(wanted, file_.bytes() - offset));
    window_begin_ = offset;
    RETURN_IF_ERROR(file_.ReadAt(offset, static_cast<int64_t>(window_.size()), window_.data()));
  }
  return absl::string_view(window_).substr(offset - window_begin_, count);
}

absl::Status TarReader::Damaged(absl::string_view what) const {
  return DataError(absl::StrCat(path_, ": at byte ", position_, ": ", what));
}

absl::StatusOr<std::string> TarReader::ExtensionData(const TarMember& member) {
  if (member.bytes > kMaxExtensionBytes) return Damaged("a long name that is no name");
  ASSIGN_OR_RETURN(const absl::string_view data, Bytes(member.data_offset, member.bytes));
  return std::string(data);
}

absl::StatusOr<std::optional<TarMember>> TarReader::Next() {
  Overrides overrides;
  const int64_t first_header = position_;
  while (true) {
    if (position_ == file_.bytes()) {
      lacks_end_marker_ = true;
      return std::nullopt;
    }
    if (file_.bytes() - position_ < kBlock) return Damaged("the shard is cut inside a header");
    ASSIGN_OR_RETURN(const absl::string_view header, Bytes(position_, kBlock));
    if (header.find_first_not_of('\0') == absl::string_view::npos) return std::nullopt;
    if (!ChecksumMatches(header)) {
      return Damaged("no tar header there; expected an uncompressed tar archive");
    }
    const char type = header[156];
    TarMember member;
    member.name = HeaderName(header);
    member.header_offset = first_header;
    member.data_offset = position_ + kBlock;
    member.bytes = Number(header.substr(124, 12));
    member.is_file = type == '0' || type == '\0' || type == '7';
    const bool is_extension = type == 'L' || type == 'K' || type == 'x' || type == 'g';
    if (!is_extension) {
      member.name = overrides.name.value_or(member.name);
      member.bytes = overrides.bytes.value_or(member.bytes);
    }
    if (type >= '1' && type <= '6') member.bytes = 0;  // links, devices and folders hold no data
    if (member.bytes < 0) return Damaged("a member of unknown size");
    if (member.bytes > file_.bytes() - member.data_offset) {
      return Damaged(absl::StrCat(
          "the member '", member.name, "' has ", member.bytes, " bytes, but the shard ends after ",
          file_.bytes() - member.data_offset, " of them: it is cut; copy it again"));
    }
    if (type == 'L' || type == 'x') {
      ASSIGN_OR_RETURN(const std::string data, ExtensionData(member));
      if (type == 'L') overrides.name = std::string(Text(data));
      if (type == 'x' && !ReadPaxRecords(data, &overrides)) return Damaged("damaged PAX records");
    }
    position_ = std::min(file_.bytes(), member.data_offset + RoundUp(member.bytes));
    last_bytes_ = member.bytes;
    if (!is_extension) return member;
  }
}

}  // namespace tessera::internal
