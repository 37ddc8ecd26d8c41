// Sums over rows that come out the same for any number of threads: the rows are cut into chunks by
// size alone, each chunk sums into a row of its own, and those rows are added in order.
#ifndef TESSERA_TENSOR_OPS_PARTIAL_SUMS_H_
#define TESSERA_TENSOR_OPS_PARTIAL_SUMS_H_

#include <algorithm>
#include <cstdint>

#include "core/parallel.h"
#include "tensor/tensor.h"

namespace tessera {

// Rows per chunk: at most 64 chunks, so that the partial sums stay small, of at least 16 Ki
// elements each.
constexpr int64_t RowsPerChunk(int64_t rows, int64_t columns) {
  constexpr int64_t kMaxChunks = 64;
  constexpr int64_t kMinElements = int64_t{1} << 14;
  const int64_t smallest = kMinElements / std::max<int64_t>(columns, 1) + 1;
  return std::max((rows + kMaxChunks - 1) / kMaxChunks, smallest);
}

class PartialSums {
 public:
  // Room for `width` sums per chunk of rows, zero-filled.
  PartialSums(int64_t num_chunks, int64_t width)
      : num_chunks_(num_chunks),
        width_(width),
        sums_(Tensor::Zeros({num_chunks, width}, DType::kF32)) {}

  float* chunk(int64_t k) const { return sums_.data<float>() + k * width_; }

  // out[j] = or += the sum over all chunks of element offset + j, for j < n.
  void AddUp(int64_t offset, int64_t n, float* __restrict out, bool accumulate) const {
    if (!accumulate) std::fill_n(out, n, 0.0f);
    for (int64_t k = 0; k < num_chunks_; ++k) {
      const float* __restrict partial = chunk(k) + offset;
      for (int64_t j = 0; j < n; ++j) out[j] += partial[j];
    }
  }

 private:
  int64_t num_chunks_;
  int64_t width_;
  Tensor sums_;
};

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_PARTIAL_SUMS_H_
