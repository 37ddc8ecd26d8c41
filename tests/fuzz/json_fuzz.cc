// Any bytes as JSON: what parses is dumped, and the dump reads back as the same.
#include "core/json.h"

#include "tests/fuzz/fuzz.h"

namespace tessera::fuzz {

std::vector<std::string> Seeds() {
  return {
      R"({"step": 3, "seed": 18446744073709551615, "metrics": {"a": -1.5e-3, "b": null}})",
      R"([true, false, null, "a\u00e9\n\ud83d\ude00", [], {}, [[1], [-2]], 1e400, 0.1])",
      R"({"annotations": [{"id": 1, "bbox": [1, 2, 3.5, 4], "segmentation": [[0, 0, 1, 1]]}]})",
      "{\n \"a\": 1,\n \"a\": 2}\n",
  };
}

}  // namespace tessera::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;  // NOLINT: the whole of a test
  const absl::StatusOr<Json> json =
      ParseJson(fuzz::ToString(data, size), "f.json", {.max_bytes = 4000, .max_depth = 20});
  fuzz::CheckError(json.status(), absl::StatusCode::kDataLoss, "f.json:");
  if (!json.ok()) return 0;
  const std::string dump = json->dump();
  const absl::StatusOr<Json> again = ParseJson(dump, "dump");
  CHECK(again.ok()) << again.status() << "\n" << dump;
  CHECK(again->dump() == dump) << dump;
  return 0;
}
