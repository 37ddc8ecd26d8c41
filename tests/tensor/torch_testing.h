// Files as torch.save writes them, put together by hand for tests.
#ifndef TESSERA_TESTS_TENSOR_TORCH_TESTING_H_
#define TESSERA_TESTS_TENSOR_TORCH_TESTING_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace tessera {

// The little-endian bytes of a number.
template <typename T>
std::string BytesOfNumber(T number) {
  return std::string(reinterpret_cast<const char*>(&number), sizeof(T));
}

struct ZipOptions {
  bool zip64 = false;  // sizes and offsets in the ZIP64 fields
  uint16_t flags = 0;
  uint16_t method = 0;  // 0: stored
};

// An archive of these members.
inline std::string ZipBytes(const std::vector<std::pair<std::string, std::string>>& members,
                            const ZipOptions& options = {}) {
  std::string file, directory;
  for (const auto& [name, bytes] : members) {
    const auto size = static_cast<uint32_t>(options.zip64 ? ~0u : bytes.size());
    const auto offset = static_cast<uint32_t>(options.zip64 ? ~0u : file.size());
    const std::string sizes = BytesOfNumber(uint64_t{bytes.size()});
    const std::string extra =
        options.zip64 ? absl::StrCat(BytesOfNumber<uint16_t>(1), BytesOfNumber<uint16_t>(24), sizes,
                                     sizes, BytesOfNumber(uint64_t{file.size()}))
                      : "";
    const std::string common =
        absl::StrCat(BytesOfNumber(options.flags), BytesOfNumber(options.method),
                     std::string(4, '\0'), std::string(4, '\0'), BytesOfNumber(size),
                     BytesOfNumber(size), BytesOfNumber(static_cast<uint16_t>(name.size())));
    absl::StrAppend(&directory, BytesOfNumber<uint32_t>(0x02014b50), std::string(4, '\0'), common,
                    BytesOfNumber(static_cast<uint16_t>(extra.size())), std::string(10, '\0'),
                    BytesOfNumber(offset), name, extra);
    // Padding that only the local header has, as torch.save aligns tensors by it.
    absl::StrAppend(&file, BytesOfNumber<uint32_t>(0x04034b50), std::string(2, '\0'), common,
                    BytesOfNumber<uint16_t>(7), name, "padding", bytes);
  }
  const uint64_t directory_offset = file.size(), count = members.size();
  file += directory;
  if (options.zip64) {
    const uint64_t end64_offset = file.size();
    absl::StrAppend(&file, BytesOfNumber<uint32_t>(0x06064b50), BytesOfNumber<uint64_t>(44),
                    std::string(12, '\0'), BytesOfNumber(count), BytesOfNumber(count),
                    BytesOfNumber(uint64_t{directory.size()}), BytesOfNumber(directory_offset));
    absl::StrAppend(&file, BytesOfNumber<uint32_t>(0x07064b50), std::string(4, '\0'),
                    BytesOfNumber(end64_offset), BytesOfNumber<uint32_t>(1));
  }
  const auto entries = static_cast<uint16_t>(options.zip64 ? 0xFFFF : count);
  absl::StrAppend(&file, BytesOfNumber<uint32_t>(0x06054b50), std::string(4, '\0'),
                  BytesOfNumber(entries), BytesOfNumber(entries),
                  BytesOfNumber(static_cast<uint32_t>(options.zip64 ? ~0u : directory.size())),
                  BytesOfNumber(static_cast<uint32_t>(options.zip64 ? ~0u : directory_offset)),
                  std::string(2, '\0'));
  return file;
}

// Opcodes of pickle, as far as tests write them.
inline std::string PickleInt(int64_t n) {
  return absl::StrCat("\x8a", std::string(1, 8), BytesOfNumber(n));
}
inline std::string PickleText(absl::string_view text) {
  return absl::StrCat("X", BytesOfNumber(static_cast<uint32_t>(text.size())), text);
}
inline std::string PickleTuple(const std::vector<int64_t>& values) {
  std::string opcodes = "(";
  for (const int64_t value : values) opcodes += PickleInt(value);
  return opcodes + "t";
}
// A program that leaves this value.
inline std::string PickleProgram(absl::string_view value) {
  return absl::StrCat("\x80\x02", value, ".");
}
// A tensor that begins at element `first` of the storage data/`key`.
inline std::string PickleTensor(absl::string_view type, absl::string_view key, int64_t first,
                                const std::vector<int64_t>& shape,
                                const std::vector<int64_t>& strides) {
  return absl::StrCat("ctorch._utils\n_rebuild_tensor_v2\n((", PickleText("storage"), "ctorch\n",
                      type, "\n", PickleText(key), PickleText("cpu"), PickleInt(1), "tQ",
                      PickleInt(first), PickleTuple(shape), PickleTuple(strides), "\x89",
                      "ccollections\nOrderedDict\n)RtR");
}
inline std::string PickleDict(const std::vector<std::pair<std::string, std::string>>& items) {
  std::string opcodes = "}(";
  for (const auto& [key, value] : items) absl::StrAppend(&opcodes, PickleText(key), value);
  return opcodes + "u";
}

}  // namespace tessera

#endif  // TESSERA_TESTS_TENSOR_TORCH_TESTING_H_
