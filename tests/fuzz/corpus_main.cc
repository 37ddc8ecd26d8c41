// NAME_corpus           runs the target on its seeds and on some thousand changes of them
// NAME_corpus FOLDER    writes the seeds there, for libFuzzer to start from
// NAME_corpus FILE...   runs the target on these inputs, to see what libFuzzer found
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "core/random.h"
#include "tests/fuzz/fuzz.h"

namespace tessera::fuzz {
namespace {

constexpr int kChangedInputs = 4000;
constexpr size_t kMaxBytes = 1 << 14;

void RunOn(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

size_t Below(RandomStream& random, size_t n) {
  return static_cast<size_t>(random.Integer(0, static_cast<int64_t>(n) - 1));
}

std::string Changed(std::string bytes, const std::vector<std::string>& seeds,
                    RandomStream& random) {
  const size_t changes = 1 + Below(random, 4);
  for (size_t i = 0; i < changes && !bytes.empty(); ++i) {
    const size_t at = Below(random, bytes.size());
    const std::string& other = seeds[Below(random, seeds.size())];
    switch (Below(random, 5)) {
      case 0:
        bytes[at] = static_cast<char>(random.Next());
        break;
      case 1:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << Below(random, 8)));
        break;
      case 2:
        bytes.resize(at);
        break;
      case 3:
        bytes.erase(at, 1 + Below(random, 8));
        break;
      case 4:
        bytes.insert(at, other.substr(Below(random, other.size() + 1), 64));
        break;
    }
  }
  bytes.resize(std::min(bytes.size(), kMaxBytes));
  return bytes;
}

void WriteSeeds(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  int number = 0;
  for (const std::string& seed : Seeds()) {
    std::ofstream(folder / absl::StrCat("seed", number++), std::ios::binary) << seed;
  }
}

int Main(int argc, char** argv) {
  FLAGS_minloglevel = google::GLOG_ERROR;
  if (argc == 2 && !std::filesystem::is_regular_file(argv[1])) {
    WriteSeeds(argv[1]);
    return 0;
  }
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    RunOn(std::string(std::istreambuf_iterator<char>(file), {}));
  }
  if (argc > 1) return 0;
  const std::vector<std::string> seeds = Seeds();
  for (const std::string& seed : seeds) RunOn(seed);
  RandomStream random(1, Purpose::kTest);
  for (int i = 0; i < kChangedInputs; ++i) {
    RunOn(Changed(seeds[Below(random, seeds.size())], seeds, random));
  }
  std::printf("%zu seeds and %d changes of them\n", seeds.size(), kChangedInputs);
  return 0;
}

}  // namespace
}  // namespace tessera::fuzz

int main(int argc, char** argv) { return tessera::fuzz::Main(argc, argv); }
