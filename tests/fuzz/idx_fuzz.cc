// Any bytes as a pair of IDX files, plain or gzipped; the first byte says where the labels end.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "data/sources/idx_source.h"
#include "tests/fuzz/fuzz.h"

namespace tessera::fuzz {
namespace {

// A file in memory that has a path.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("idx", 0)), path_(absl::StrCat("/proc/self/fd/", fd_)) {
    CHECK_GE(fd_, 0);
  }
  void Set(absl::string_view bytes) {
    CHECK_EQ(ftruncate(fd_, 0), 0);
    CHECK_EQ(pwrite(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

std::string Pair(const std::string& labels, const std::string& images) {
  return std::string(1, static_cast<char>(labels.size())) + labels + images;
}

}  // namespace

std::vector<std::string> Seeds() {
  const std::string labels("\0\0\x08\x01\0\0\0\x02\x01\0", 10);
  const std::string images(
      "\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x02"
      "abcd",
      20);
  // Two labels, gzipped.
  const std::string gzipped(
      "\x1f\x8b\x08\0\0\0\0\0\x02\x03\x63\x60\xe0\x60\x64\x60\x60\x60\x62\x64\0\0\x58\x9d\x87\x8c"
      "\x0a\0\0\0",
      30);
  return {Pair(labels, images), Pair(gzipped, images)};
}

}  // namespace tessera::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;  // NOLINT: the whole of a test
  static auto* const labels = new fuzz::MemoryFile();
  static auto* const images = new fuzz::MemoryFile();
  if (size == 0) return 0;
  const std::string bytes = fuzz::ToString(data + 1, size - 1);
  const size_t cut = std::min<size_t>(data[0], bytes.size());
  labels->Set(absl::string_view(bytes).substr(0, cut));
  images->Set(absl::string_view(bytes).substr(cut));
  const auto source = internal::OpenIdx(images->path(), labels->path(), std::nullopt);
  fuzz::CheckError(source.status(), absl::StatusCode::kDataLoss, "/proc/self/fd/");
  if (!source.ok()) return 0;
  std::vector<uint8_t> pixels;
  for (int64_t i = 0; i < (*source)->num_samples(); ++i) {
    CHECK((*source)->label(i) >= 0 && (*source)->label(i) < (*source)->num_classes());
    CHECK((*source)->ReadBytes(i, &pixels).ok());
    CHECK((*source)->Decode(pixels, {}).ok());
  }
  return 0;
}
