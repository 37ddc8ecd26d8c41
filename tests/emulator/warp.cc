// What the lanes of a warp compute together. Lane l holds, of fragments: g = l / 4, t = l % 4.
#include <cstring>

#include "tests/emulator/runtime.h"

namespace tessera::emulator {
namespace {

constexpr int kLanes = 32;

float FloatOf(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

uint32_t BitsOf(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// Element i of packed bf16.
float Bf16At(const uint32_t* words, int i) {
  return FloatOf(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xFFFF0000u);
}

// Element i (0..7) of a row of eight.
uint32_t HalfAt(const uint32_t* row, int i) { return (row[i / 2] >> (16 * (i % 2))) & 0xFFFF; }

}  // namespace

void CombineShuffle(int words, const uint32_t* const* in, uint32_t* const* out) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint32_t source = in[lane][words];
    for (int w = 0; w < words; ++w) out[lane][w] = in[source % kLanes][w];
  }
}

void CombineBallot(int, const uint32_t* const* in, uint32_t* const* out) {
  uint32_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= (in[lane][0] & 1) << lane;
  for (int lane = 0; lane < kLanes; ++lane) out[lane][0] = bits;
}

// Register m of a lane gets row g, columns 2t and 2t + 1 of matrix m, whose rows are those of lanes
// 8m to 8m + 7.
void CombineLoadMatrix(int words, const uint32_t* const* in, uint32_t* const* out) {
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int m = 0; m < words; ++m) out[lane][m] = in[8 * m + lane / 4][lane % 4];
  }
}

// Rows 2t and 2t + 1 of column g.
void CombineLoadMatrixTransposed(int words, const uint32_t* const* in, uint32_t* const* out) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int m = 0; m < words; ++m) {
      out[lane][m] = HalfAt(in[8 * m + 2 * t], g) | HalfAt(in[8 * m + 2 * t + 1], g) << 16;
    }
  }
}

// Register r of A holds rows g + 8 (r % 2), columns 2t + 8 (r / 2) and the next; register r of B
// rows 2t + 8r and the next of column g; element i of C and D row g + 8 (i / 2), column 2t + i % 2.
void CombineMma16816(int, const uint32_t* const* in, uint32_t* const* out) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 8; ++i) {
      a[g + 8 * (i / 2 % 2)][2 * t + i % 2 + 8 * (i / 4)] = Bf16At(in[lane], i);
    }
    for (int i = 0; i < 4; ++i) b[2 * t + i % 2 + 8 * (i / 2)][g] = Bf16At(in[lane] + 4, i);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = g + 8 * (i / 2), column = 2 * t + i % 2;
      float sum = 0;
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      out[lane][i] = BitsOf(FloatOf(in[lane][6 + i]) + sum);
    }
  }
}

}  // namespace tessera::emulator
