// Deterministic values made from names: weights and inputs of golden cases are not stored but
// computed, from integer hashes alone. Element i of the tensor called `name` comes from
// u = (splitmix64(fnv1a64(name) + i) >> 40) / 2^23 - 1 in [-1, 1), exact in f32.
#ifndef TESSERA_TESTS_GOLDEN_FILL_H_
#define TESSERA_TESTS_GOLDEN_FILL_H_

#include <cmath>
#include <cstdint>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "core/random.h"
#include "tensor/shape.h"

namespace tessera {

inline float FillUnit(uint64_t hash, int64_t i) {
  const uint64_t bits = SplitMix64(hash + static_cast<uint64_t>(i)) >> 40;
  return static_cast<float>(static_cast<double>(bits) / 8388608.0 - 1.0);
}

// u itself, for inputs.
inline void FillInput(absl::string_view name, int64_t numel, float* values) {
  const uint64_t hash = HashString(name);
  for (int64_t i = 0; i < numel; ++i) values[i] = FillUnit(hash, i);
}

// Matrices and kernels: u sqrt(3 / fan_in); running variances 1 + u / 2; norm weights 1 + u / 10;
// other vectors u / 10. Each value is one f32 operation after u, and a factor from the case one
// more.
inline void FillParameter(absl::string_view name, const Shape& shape, float factor, float* values) {
  const uint64_t hash = HashString(name);
  const int64_t numel = shape.numel();
  const bool matrix = shape.rank() >= 2;
  const bool variance = absl::EndsWith(name, "running_var");
  const float bound =
      matrix     ? static_cast<float>(std::sqrt(3.0 / static_cast<double>(numel / shape[0])))
      : variance ? 0.5f
                 : 0.1f;
  const bool around_one = !matrix && (variance || absl::EndsWith(name, ".weight"));
  for (int64_t i = 0; i < numel; ++i) {
    const float scaled = FillUnit(hash, i) * bound;
    values[i] = (around_one ? 1.0f + scaled : scaled) * factor;
  }
}

// Where sampled values of the tensor called `name` sit, j = 0, 1, ...
inline int64_t SampleIndex(absl::string_view name, int64_t j, int64_t numel) {
  const uint64_t hash = HashString(absl::StrCat(name, "#sample"));
  return static_cast<int64_t>(SplitMix64(hash + static_cast<uint64_t>(j)) %
                              static_cast<uint64_t>(numel));
}

}  // namespace tessera

#endif  // TESSERA_TESTS_GOLDEN_FILL_H_
