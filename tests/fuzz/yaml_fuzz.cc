// Any bytes as a configuration: what parses is dumped, and the dump reads back as the same.
#include "core/config.h"
#include "tests/fuzz/fuzz.h"

namespace tessera::fuzz {
namespace {

struct Inner {
  double rate = 0.1;
  std::vector<double> betas = {0.9, 0.99};

  template <class V>
  void VisitFields(V& v) {
    v("rate", rate, "", Between(0, 1));
    v("betas", betas, "", HalfOpen(0, 1));
  }
};

struct Outer {
  int64_t steps = 1;
  bool fast = false;
  std::string name = "a";
  std::vector<int64_t> sizes;
  std::vector<std::string> names;
  ConfigNode model;
  Inner inner;

  template <class V>
  void VisitFields(V& v) {
    v("steps", steps, "", AtLeast(0));
    v("fast", fast, "");
    v("name", name, "", OneOf({"a", "b"}));
    v("sizes", sizes, "");
    v("names", names, "");
    v("model", model, "");
    v("inner", inner, "");
  }
};

}  // namespace

std::vector<std::string> Seeds() {
  return {
      "steps: 3\nfast: true\nname: b\nsizes: [1, 2]\nnames: [x, \"y\\n\"]\n"
      "model:\n  name: davit\n  depths: [1, 1]\ninner:\n  rate: 1e-3\n  betas: [0.9, 0.95]\n",
      "inner: {rate: .5, betas: []}  # comment\nmodel: ~\nsizes:\n  - 1\n  - -2\n",
      "name: 'a'\nmodel:\n  text: |\n    two\n    lines\n  folded: >-\n    a\n    b\n",
      "? steps\n: 7\n--- \nb: &x 1\nc: *x\nd: !!int 3\n",
  };
}

}  // namespace tessera::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;  // NOLINT: the whole of a test
  const absl::StatusOr<ConfigNode> node = ParseYaml(fuzz::ToString(data, size), "f.yaml");
  fuzz::CheckError(node.status(), absl::StatusCode::kInvalidArgument, "f.yaml");
  if (!node.ok()) return 0;
  const std::string dump = DumpYaml(*node);
  const absl::StatusOr<ConfigNode> again = ParseYaml(dump, "dump");
  CHECK(again.ok()) << again.status() << "\n" << dump;
  CHECK(DumpYaml(*again) == dump) << dump;
  fuzz::Outer config;
  const absl::Status status = ReadConfig(*node, &config);
  fuzz::CheckError(status, absl::StatusCode::kInvalidArgument, "f.yaml");
  if (!status.ok()) return 0;
  fuzz::Outer copy;
  const std::string resolved = DumpConfig(config);
  const absl::StatusOr<ConfigNode> parsed = ParseYaml(resolved, "resolved");
  CHECK(parsed.ok()) << parsed.status() << "\n" << resolved;
  CHECK(ReadConfig(*parsed, &copy).ok()) << resolved;
  CHECK(DumpConfig(copy) == resolved) << resolved;
  return 0;
}
