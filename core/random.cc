#include "core/random.h"

#include <cmath>
#include <numbers>

#include "core/check.h"

namespace tessera {

std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(p0)};
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c;
}

RandomKey::RandomKey(uint64_t seed, Purpose purpose, uint64_t a, uint64_t b) {
  const uint64_t k = SplitMix64(SplitMix64(SplitMix64(seed) ^ static_cast<uint64_t>(purpose)) ^ a);
  key = {static_cast<uint32_t>(k), static_cast<uint32_t>(k >> 32)};
  nonce = {static_cast<uint32_t>(b), static_cast<uint32_t>(b >> 32)};
}

RandomStream::RandomStream(const RandomKey& key)
    : key_(key.key), counter_{0, 0, key.nonce[0], key.nonce[1]} {}

RandomStream::RandomStream(uint64_t seed, Purpose purpose, uint64_t a, uint64_t b)
    : RandomStream(RandomKey(seed, purpose, a, b)) {}

uint32_t RandomStream::Next() {
  if (used_ == 4) {
    block_ = Philox4x32(counter_, key_);
    if (++counter_[0] == 0) ++counter_[1];
    used_ = 0;
  }
  return block_[used_++];
}

uint64_t RandomStream::Next64() {
  const uint64_t high = Next();
  return high << 32 | Next();
}

double RandomStream::Uniform() { return static_cast<double>(Next64() >> 11) * 0x1p-53; }

double RandomStream::Uniform(double low, double high) { return low + (high - low) * Uniform(); }

int64_t RandomStream::Integer(int64_t low, int64_t high) {
  CHECK_LE(low, high);
  const uint64_t range = static_cast<uint64_t>(high) - static_cast<uint64_t>(low) + 1;
  if (range == 0) return static_cast<int64_t>(Next64());
  // Values below 2^64 mod range would make the first residues likelier.
  const uint64_t reject_below = (0 - range) % range;
  uint64_t draw = Next64();
  while (draw < reject_below) draw = Next64();
  return static_cast<int64_t>(static_cast<uint64_t>(low) + draw % range);
}

bool RandomStream::Bernoulli(double p) { return Uniform() < p; }

double RandomStream::Normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - Uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * Uniform());
}

double RandomStream::Gamma(double alpha) {
  if (alpha < 1.0) {
    const double u = 1.0 - Uniform();
    return Gamma(alpha + 1.0) * std::pow(u, 1.0 / alpha);
  }
  const double d = alpha - 1.0 / 3.0;
  const double c = 1.0 / std::sqrt(9.0 * d);
  while (true) {
    const double x = Normal();
    const double v = std::pow(1.0 + c * x, 3);
    if (v <= 0.0) continue;
    const double u = 1.0 - Uniform();
    if (std::log(u) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

double RandomStream::Beta(double alpha, double beta) {
  CHECK(alpha > 0.0 && beta > 0.0) << "Beta(" << alpha << ", " << beta << ")";
  const double x = Gamma(alpha);
  const double y = Gamma(beta);
  return x / (x + y);
}

}  // namespace tessera
