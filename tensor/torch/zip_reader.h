// The members of a ZIP archive (PKWARE APPNOTE 6.3, ZIP64 included). It gives the place of each
// member, so that parts of those that are stored without compression, as torch.save does, can be
// read in any order, for which archive libraries have no call.
#ifndef TESSERA_TENSOR_TORCH_ZIP_READER_H_
#define TESSERA_TENSOR_TORCH_ZIP_READER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/file_system.h"

namespace tessera {

struct ZipMember {
  std::string name;
  int64_t offset = 0;  // of its bytes in the file
  int64_t bytes = 0;
  bool is_stored = false;  // neither compressed nor encrypted: its bytes are its contents
};

// The members in the order of the archive's directory; the bytes of each lie within the file.
// DataErrors, without the file's name, for whatever is damaged or in several volumes. Checksums are
// not looked at: torch.save leaves them out on request.
absl::StatusOr<std::vector<ZipMember>> ReadZipDirectory(const ReadableFile& file);

}  // namespace tessera

#endif  // TESSERA_TENSOR_TORCH_ZIP_READER_H_
