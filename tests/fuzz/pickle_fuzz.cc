// Any bytes as a file of torch.save, and as the pickle in one: every tensor that a file promises is
// read.
#include "tensor/torch/pickle.h"
#include "tensor/torch/torch_file.h"
#include "tests/core/faulty_file_system.h"
#include "tests/fuzz/fuzz.h"
#include "tests/tensor/torch_testing.h"

namespace tessera::fuzz {
namespace {

constexpr int64_t kMaxElements = 1 << 20;

std::string File(const std::string& pickled, const ZipOptions& options = {}) {
  return ZipBytes({{"a/data.pkl", PickleProgram(pickled)},
                   {"a/byteorder", "little"},
                   {"a/data/0", std::string(24, 'x')}},
                  options);
}

}  // namespace

std::vector<std::string> Seeds() {
  const std::string floats = PickleTensor("FloatStorage", "0", 0, {2, 3}, {3, 1});
  const std::string halves = PickleTensor("HalfStorage", "0", 1, {3, 2}, {1, 3});
  const std::string counter = PickleTensor("LongStorage", "0", 2, {}, {});
  const std::string parameter =
      absl::StrCat("ctorch._utils\n_rebuild_parameter\n(", floats, "\x88NtR");
  return {
      File(PickleDict({{"a.weight", floats}, {"a.bias", halves}})),
      File(PickleDict({{"model", PickleDict({{"module.w", parameter}, {"module.n", counter}})},
                       {"epoch", PickleInt(3)}}),
           {.zip64 = true}),
      File(absl::StrCat("ccollections\nOrderedDict\n)Rq", std::string(1, '\0'), "(",
                        PickleText("w"), halves, "u}b0h", std::string(1, '\0'))),
      PickleProgram(absl::StrCat("](NK\x05", "M\x01\x02", PickleTuple({1, 2}), "cm\nf\n)\x81}be")),
  };
}

}  // namespace tessera::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;  // NOLINT: the whole of a test
  const std::string bytes = fuzz::ToString(data, size);
  fuzz::CheckError(Pickle::Parse(bytes, {"m.f"}).status(), absl::StatusCode::kDataLoss, "byte ");
  FaultyFileSystem fs;
  CHECK(WriteFileAtomically(fs, "/f", bytes).ok());
  const absl::StatusOr<TorchFile> file = TorchFile::Open(fs, "/f");
  fuzz::CheckError(file.status(), absl::StatusCode::kDataLoss, "/f: ");
  if (!file.ok()) return 0;
  for (const TorchFile::Entry& entry : file->entries()) {
    const bool counts = entry.dtype == FileDType::kI64;
    if (entry.shape.numel() > fuzz::kMaxElements) continue;
    if (!counts && !IsFloatingPoint(entry.dtype)) continue;
    const Tensor tensor = Tensor::Empty(entry.shape, counts ? DType::kI64 : DType::kF32);
    CHECK(file->Read(entry, tensor).ok()) << entry.name;
  }
  return 0;
}
