// A fuzz target: NAME_fuzz.cc reads arbitrary bytes through one reader and CHECKs what must hold
// whatever they are. The same function serves libFuzzer (preset `fuzz`) and corpus_main.cc, which
// needs no special compiler.
#ifndef TESSERA_TESTS_FUZZ_FUZZ_H_
#define TESSERA_TESTS_FUZZ_FUZZ_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "core/check.h"
#include "core/file_system.h"
#include "core/status.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace tessera::fuzz {

// Well-formed inputs to start from; defined by each target.
std::vector<std::string> Seeds();

inline std::string ToString(const uint8_t* data, size_t size) {
  return std::string(reinterpret_cast<const char*>(data), size);
}

// Errors are of the user's kind and say where.
inline void CheckError(const absl::Status& status, absl::StatusCode code, absl::string_view place) {
  if (status.ok()) return;
  CHECK(status.code() == code) << status;
  CHECK(absl::StrContains(status.message(), place)) << status << " does not name " << place;
}

// A file in memory.
class BytesFile : public ReadableFile {
 public:
  explicit BytesFile(std::string bytes) : bytes_(std::move(bytes)) {}
  int64_t bytes() const override { return static_cast<int64_t>(bytes_.size()); }
  absl::Status ReadAt(int64_t offset, int64_t count, void* dst) const override {
    CHECK(offset >= 0 && count >= 0) << "read of " << count << " bytes at " << offset;
    if (offset > bytes() || count > bytes() - offset) return DataError("read beyond the end");
    bytes_.copy(static_cast<char*>(dst), static_cast<size_t>(count), static_cast<size_t>(offset));
    return absl::OkStatus();
  }

 private:
  std::string bytes_;
};

}  // namespace tessera::fuzz

#endif  // TESSERA_TESTS_FUZZ_FUZZ_H_
