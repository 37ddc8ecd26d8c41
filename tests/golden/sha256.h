// SHA-256 (FIPS 180-4), for comparing decoded pictures with recorded ones.
#ifndef TESSERA_TESTS_GOLDEN_SHA256_H_
#define TESSERA_TESTS_GOLDEN_SHA256_H_

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>

#include "absl/strings/str_format.h"
#include "absl/types/span.h"

namespace tessera {

class Sha256 {
 public:
  static std::string Hex(absl::Span<const uint8_t> bytes) {
    Sha256 hash;
    const uint64_t bits = uint64_t{bytes.size()} * 8;
    size_t at = 0;
    for (; at + 64 <= bytes.size(); at += 64) hash.Block(&bytes[at]);
    std::string tail(bytes.begin() + at, bytes.end());
    tail.push_back('\x80');
    while (tail.size() % 64 != 56) tail.push_back('\0');
    for (int shift = 56; shift >= 0; shift -= 8) tail.push_back(static_cast<char>(bits >> shift));
    for (at = 0; at < tail.size(); at += 64) {
      hash.Block(reinterpret_cast<const uint8_t*>(tail.data()) + at);
    }
    std::string hex;
    for (const uint32_t word : hash.state_) absl::StrAppendFormat(&hex, "%08x", word);
    return hex;
  }

 private:
  // The constants are the first 32 bits of the fractional parts of roots of the first primes.
  Sha256() {
    int prime = 2;
    for (int i = 0; i < 64; ++prime) {
      bool is_prime = true;
      for (int d = 2; d * d <= prime; ++d) is_prime = is_prime && prime % d != 0;
      if (!is_prime) continue;
      if (i < 8) state_[i] = Fraction(std::sqrt(static_cast<long double>(prime)));
      k_[i++] = Fraction(std::cbrt(static_cast<long double>(prime)));
    }
  }
  static uint32_t Fraction(long double x) {
    return static_cast<uint32_t>((x - std::floor(x)) * 4294967296.0L);
  }

  void Block(const uint8_t* bytes) {
    std::array<uint32_t, 64> w;
    for (int i = 0; i < 16; ++i) {
      w[i] = uint32_t{bytes[4 * i]} << 24 | uint32_t{bytes[4 * i + 1]} << 16 |
             uint32_t{bytes[4 * i + 2]} << 8 | bytes[4 * i + 3];
    }
    for (int i = 16; i < 64; ++i) {
      const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
      const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (int i = 0; i < 64; ++i) {
      const uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
      const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
      const uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + k_[i] + w[i];
      const uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g;
      g = f;
      f = e;
      e = d + t1;
      d = c;
      c = b;
      b = a;
      a = t1 + t2;
    }
    const std::array<uint32_t, 8> added = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state_[i] += added[i];
  }

  std::array<uint32_t, 8> state_;
  std::array<uint32_t, 64> k_;
};

}  // namespace tessera

#endif  // TESSERA_TESTS_GOLDEN_SHA256_H_
