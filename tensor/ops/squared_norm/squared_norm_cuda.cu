#include "core/cuda/elementwise.h"
#include "core/device_runtime.h"
#include "tensor/ops/squared_norm/squared_norm_kernel.h"

namespace tessera {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kElementsPerBlock = 16 * kThreads * kPackedElements;

template <int kWidth>
KERNEL(kThreads)
SumOfSquares(const float* x, int64_t n, double* partials) {
  const int64_t begin = blockIdx.x * kElementsPerBlock;
  const int64_t end = begin + kElementsPerBlock < n ? begin + kElementsPerBlock : n;
  double sum = 0;
  for (int64_t i = begin + static_cast<int64_t>(threadIdx.x) * kWidth; i < end;
       i += kThreads * kWidth) {
    float v[kWidth];
    if (i + kWidth <= end) {
      LoadFloats(x + i, v);
    } else {
      UNROLL for (int j = 0; j < kWidth; ++j) v[j] = i + j < end ? x[i + j] : 0.0f;
    }
    UNROLL for (int j = 0; j < kWidth; ++j) sum += static_cast<double>(v[j]) * v[j];
  }
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

KERNEL(kThreads) SumOfPartials(const double* partials, int64_t n, double* result) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) sum += partials[i];
  sum = BlockSum<kThreads>(sum);
  if (threadIdx.x == 0) *result = sum;
}

void SquaredNormCuda(const SquaredNormArgs& args) {
  const Stream stream = CurrentStream();
  const int64_t blocks = CeilDiv(args.n, kElementsPerBlock);
  const Workspace<double> partials(blocks + 1);
  double* result = partials.data() + blocks;
  if (IsAligned16(args.x)) {
    Launch<SumOfSquares<kPackedElements>>({.x = blocks}, {.x = kThreads}, 0, stream, args.x, args.n,
                                          partials.data());
  } else {
    Launch<SumOfSquares<1>>({.x = blocks}, {.x = kThreads}, 0, stream, args.x, args.n,
                            partials.data());
  }
  Launch<SumOfPartials>({}, {.x = kThreads}, 0, stream, partials.data(), blocks, result);
  RuntimeOf(Device::kCuda).Copy(args.result, result, sizeof(double), CopyKind::kToHost);
}

REGISTER_CUDA_KERNEL(squared_norm, SquaredNormCuda);

}  // namespace
}  // namespace tessera
