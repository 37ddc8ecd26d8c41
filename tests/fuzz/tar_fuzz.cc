// Any bytes as a tar shard: every sample of its index lies inside the file.
#include "data/sources/shard_index.h"
#include "tests/data/data_testing.h"
#include "tests/fuzz/fuzz.h"

namespace tessera::fuzz {

std::vector<std::string> Seeds() {
  const std::string long_name(120, 'n');
  return {
      TarMemberBytes("a/1.jpg", "jpeg") + TarMemberBytes("b/2.png", "png") + TarEnd(),
      TarMemberBytes("1.jpg", "jpeg") + TarMemberBytes("1.cls", "7\n") + TarEnd(),
      TarMemberBytes("a", "", '5') + TarMemberBytes("././@LongLink", long_name + '\0', 'L') +
          TarMemberBytes("a/1.jpg", "x") + TarEnd(),
      TarMemberBytes("pax", "18 path=b/3.jpg\n11 size=2\n", 'x') + TarMemberBytes("a/1.jpg", "xy") +
          TarEnd(),
  };
}

}  // namespace tessera::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;  // NOLINT: the whole of a test
  const fuzz::BytesFile file(fuzz::ToString(data, size));
  const absl::StatusOr<internal::ShardIndex> index = internal::BuildShardIndex("f.tar", file);
  fuzz::CheckError(index.status(), absl::StatusCode::kDataLoss, "f.tar: ");
  if (!index.ok()) return 0;
  for (const internal::ShardEntry& entry : index->entries) {
    CHECK(entry.offset >= entry.header_bytes && entry.offset + entry.bytes <= file.bytes());
    CHECK(entry.label >= 0);
    if (!index->folders.empty()) {
      CHECK_LT(entry.label, static_cast<int32_t>(index->folders.size()));
    }
  }
  return 0;
}
