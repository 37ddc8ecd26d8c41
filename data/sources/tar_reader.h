// Members of an uncompressed tar archive: USTAR (POSIX.1-1988), PAX (POSIX.1-2001) and GNU long
// names. Gives the place of each member's data, so that it can be read later without the archive.
#ifndef TESSERA_DATA_SOURCES_TAR_READER_H_
#define TESSERA_DATA_SOURCES_TAR_READER_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "core/file_system.h"

namespace tessera::internal {

struct TarMember {
  std::string name;
  bool is_file = false;       // a regular file
  int64_t header_offset = 0;  // of its first header
  int64_t data_offset = 0;
  int64_t bytes = 0;
};

class TarReader {
 public:
  // `file` must outlive the reader; `path` is for messages. Starts at the header at `offset`.
  TarReader(const ReadableFile& file, std::string path, int64_t offset = 0)
      : file_(file), path_(std::move(path)), position_(offset) {}

  // The next member, or none at the end of the archive. DataError, with shard and offset, for a
  // damaged header or a member that the file ends in.
  absl::StatusOr<std::optional<TarMember>> Next();
  // True once the archive has ended without the two zero blocks that mark its end.
  bool lacks_end_marker() const { return lacks_end_marker_; }

 private:
  // `count` bytes at `offset`, valid until the next call.
  absl::StatusOr<absl::string_view> Bytes(int64_t offset, int64_t count);
  absl::Status Damaged(absl::string_view what) const;
  absl::StatusOr<std::string> ExtensionData(const TarMember& member);

  const ReadableFile& file_;
  std::string path_;
  int64_t position_;
  int64_t last_bytes_ = 0;  // of the last member, from which the size of the next read follows
  std::string window_;      // what was read last
  int64_t window_begin_ = 0;
  bool lacks_end_marker_ = false;
};

}  // namespace tessera::internal

#endif  // TESSERA_DATA_SOURCES_TAR_READER_H_
