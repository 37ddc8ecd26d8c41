// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011).
//
// A stream is named by (seed, purpose, a, b), for example (seed, kAugment, epoch, sample index):
// what it yields depends on nothing else, so results are the same for any number of threads,
// workers and ranks, and after a resume. Distributions are defined here, since those of <random>
// differ between standard libraries.
#ifndef TESSERA_CORE_RANDOM_H_
#define TESSERA_CORE_RANDOM_H_

#include <array>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace tessera {

// One block of the generator: 128 random bits from a 128-bit counter and a 64-bit key.
std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// The 64-bit mixing step of SplitMix64 (Steele et al., OOPSLA 2014).
constexpr uint64_t SplitMix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// FNV-1a, for streams that belong to something with a name.
constexpr uint64_t HashString(absl::string_view text) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001B3u;
  return hash;
}

// What a stream is for. Values are part of saved runs: append, never renumber.
enum class Purpose : uint32_t {
  kInit = 1,      // parameter initialisation: a = hash of the parameter's name, b = chunk
  kShuffle = 2,   // order of samples: a = epoch
  kAugment = 3,   // one sample's transforms: a = epoch, b = sample index and repeat
  kMix = 4,       // mixup and cutmix: a = step
  kDropPath = 5,  // a = step, b = hash of the layer's name and the sample
  kDropout = 6,   // a = step, b = hash of the layer's name
  kTest = 7,
};

// The name of a stream in the form that Philox takes it, for kernels that make many words at once:
// word i of the stream is word i % 4 of the block with counter {i / 4 (64 bits, low word first),
// nonce}.
struct RandomKey {
  RandomKey(uint64_t seed, Purpose purpose, uint64_t a = 0, uint64_t b = 0);
  std::array<uint32_t, 2> key;
  std::array<uint32_t, 2> nonce;
};

class RandomStream {
 public:
  explicit RandomStream(const RandomKey& key);
  RandomStream(uint64_t seed, Purpose purpose, uint64_t a = 0, uint64_t b = 0);

  uint32_t Next();                          // uniform over all 32-bit values
  uint64_t Next64();                        // uniform over all 64-bit values
  double Uniform();                         // [0, 1), 53 random bits
  double Uniform(double low, double high);  // [low, high)
  int64_t Integer(int64_t low,
                  int64_t high);  // low..high, both included, without bias; CHECK low <= high
  bool Bernoulli(double p);       // true with probability p
  double Normal();                // mean 0, standard deviation 1 (Box-Muller)
  double Beta(double alpha, double beta);  // from two Gammas; CHECK alpha, beta > 0

 private:
  double Gamma(double alpha);  // scale 1 (Marsaglia and Tsang, ACM TOMS 26, 2000)

  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 4> counter_;
  std::array<uint32_t, 4> block_;
  int used_ = 4;  // words of block_ already handed out
};

}  // namespace tessera

#endif  // TESSERA_CORE_RANDOM_H_
