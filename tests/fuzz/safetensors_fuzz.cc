// Any bytes as a safetensors file: opened, and every tensor that the header promises is read.
#include "tensor/safetensors.h"

#include "tests/core/faulty_file_system.h"
#include "tests/fuzz/fuzz.h"

namespace tessera::fuzz {
namespace {

std::string FileOf(absl::string_view header, absl::string_view data) {
  const uint64_t size = header.size();
  return absl::StrCat(absl::string_view(reinterpret_cast<const char*>(&size), 8), header, data);
}

}  // namespace

std::vector<std::string> Seeds() {
  return {
      FileOf("{}", ""),
      FileOf(R"({"__metadata__":{"format":"pt"},"a.b":{"dtype":"F32","shape":[1,2],)"
             R"("data_offsets":[0,8]},"h":{"dtype":"F16","shape":[],"data_offsets":[8,10]}})",
             "0123456789"),
      FileOf(R"({"s":{"dtype":"I16","shape":[2],"data_offsets":[0,4]},)"
             R"("b":{"dtype":"BOOL","shape":[0,9],"data_offsets":[4,4]},)"
             R"("d":{"dtype":"BF16","shape":[1,1],"data_offsets":[4,6]}})",
             "abcdef"),
      FileOf(R"({"x":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
             R"("y":{"dtype":"I64","shape":[1],"data_offsets":[8,16]},)"
             R"("z":{"dtype":"I8","shape":[3],"data_offsets":[16,19]}})",
             "0123456701234567abc"),
  };
}

}  // namespace tessera::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tessera;  // NOLINT: the whole of a test
  FaultyFileSystem fs;
  CHECK(WriteFileAtomically(fs, "/f", fuzz::ToString(data, size)).ok());
  const absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(fs, "/f");
  fuzz::CheckError(file.status(), absl::StatusCode::kDataLoss, "/f: ");
  if (!file.ok()) return 0;
  int64_t promised = 0;
  for (const SafetensorsFile::Entry& entry : file->entries()) {
    CHECK_EQ(entry.begin, promised);
    promised = entry.end;
    const absl::StatusOr<Tensor> tensor = file->Read(entry.name);
    CHECK(tensor.ok()) << tensor.status();
    CHECK(tensor->shape() == entry.shape);
  }
  CHECK_LE(promised, static_cast<int64_t>(size));
  return 0;
}
