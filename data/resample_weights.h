// Filter weights of Resize and the SIMD passes that apply them.
#ifndef TESSERA_DATA_RESAMPLE_WEIGHTS_H_
#define TESSERA_DATA_RESAMPLE_WEIGHTS_H_

#include <cstdint>
#include <vector>

#include "data/image.h"
#include "data/resample.h"

namespace tessera::internal {

inline constexpr int kWeightBits = 22;
inline constexpr int kLowBits = 12;

// Weights of one direction: output i, counted from the first one computed, is the sum over k <
// count[i] of weight k of i times source[first[i] + k].
struct ResampleWeights {
  int64_t pairs = 0;           // stored per output: half the largest count, up to an even number
  std::vector<int64_t> first;  // first source index of each output
  std::vector<int64_t> count;
  // A weight is up to 23 bits and sign, too wide for 16-bit multiply-add: it is high * 2^12 + low,
  // both 16 bits. Two adjacent weights share an int32, the even one in its low half.
  // [outputs][pairs], zeros after the last weight.
  std::vector<int32_t> high;
  std::vector<int32_t> low;

  int64_t outputs() const { return static_cast<int64_t>(first.size()); }
};

// Weights for the outputs [begin, end) of `out_size` that show [window_begin, window_end) of
// `in_size` source pixels.
ResampleWeights MakeResampleWeights(Filter filter, int64_t in_size, float window_begin,
                                    float window_end, int64_t out_size, int64_t begin, int64_t end);

// Rows [first_row, first_row + num_rows) of `source`, filtered along x, to `out` with `out_stride`
// bytes per row. Writes up to one byte past the last pixel of a row, so out_stride > 3 * outputs.
void ResampleRows(const ImageView& source, const ResampleWeights& weights, uint8_t* out,
                  int64_t out_stride);

// Filters `source` along y. Loads and stores whole vectors: both need kImagePadding after their
// last row.
void ResampleColumns(const ImageView& source, const ResampleWeights& weights, Image* out);

}  // namespace tessera::internal

#endif  // TESSERA_DATA_RESAMPLE_WEIGHTS_H_
