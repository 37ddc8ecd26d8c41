#include "core/cuda/column_sums.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/gelu/gelu_kernel.h"

namespace tessera {
namespace {

constexpr float kSqrtHalf = 0.70710678118654752f;
constexpr float kInverseSqrtTwoPi = 0.39894228040143268f;

// Phi(x) = erfc(-x / sqrt 2) / 2, which keeps its relative precision where it is small. At minus
// infinity, x Phi(x) is its limit.
DEVICE float NormalCdf(float x) { return 0.5f * erfcf(-x * kSqrtHalf); }

DEVICE float GeluOf(float x) {
  const float cdf = NormalCdf(x);
  return cdf == 0.0f ? 0.0f : x * cdf;
}

DEVICE float GeluDerivativeOf(float x) {
  const float density = kInverseSqrtTwoPi * expf(-0.5f * x * x);
  return NormalCdf(x) + (density == 0.0f ? 0.0f : x * density);
}

template <typename T>
struct Forward {
  const T* x;
  T* y;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float v[kCount];
    LoadFloats(x + i, v);
    UNROLL for (int j = 0; j < kCount; ++j) v[j] = GeluOf(v[j]);
    StoreFloats(v, y + i);
  }
};

template <bool kAccumulate, typename T>
struct Backward {
  const T* dy;
  const T* x;
  T* dx;
  T* y;
  int64_t columns;

  // Writes kCount elements of dx, and of y if wanted; `d` receives them without what dx held.
  template <int kCount>
  DEVICE void Gradient(int64_t i, float (&d)[kCount]) const {
    float v[kCount], result[kCount];
    LoadFloats(dy + i, d);
    LoadFloats(x + i, v);
    if constexpr (kAccumulate) LoadFloats(dx + i, result);
    UNROLL for (int j = 0; j < kCount; ++j) {
      d[j] *= GeluDerivativeOf(v[j]);
      result[j] = kAccumulate ? result[j] + d[j] : d[j];
    }
    StoreFloats(result, dx + i);
    if (y == nullptr) return;
    UNROLL for (int j = 0; j < kCount; ++j) v[j] = GeluOf(v[j]);
    StoreFloats(v, y + i);
  }
  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float d[kCount];
    Gradient(i, d);
  }
  template <int kWidth>
  DEVICE void Run(int64_t row, int64_t column, float (&sums)[1][kWidth]) const {
    float d[kWidth];
    Gradient(row * columns + column, d);
    UNROLL for (int j = 0; j < kWidth; ++j) sums[0][j] += d[j];
  }
};

void GeluCuda(const GeluArgs& args) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    LaunchElementwise(Forward<T>{static_cast<const T*>(args.x), static_cast<T*>(args.y)}, args.n,
                      IsAligned16(args.x) && IsAligned16(args.y));
  });
}

template <typename Fn>
void BackwardWithSums(const Fn& fn, const GeluBackwardArgs& args, bool aligned) {
  const int64_t chunk_rows = SumChunkRows(args.rows);
  const int64_t chunks = CeilDiv(args.rows, chunk_rows);
  const Workspace<float> partials(chunks * args.columns);
  if (aligned && args.columns % kPackedElements == 0) {
    LaunchPartialColumnSums<kPackedElements, 1>(fn, args.rows, args.columns, chunk_rows,
                                                partials.data());
  } else {
    LaunchPartialColumnSums<1, 1>(fn, args.rows, args.columns, chunk_rows, partials.data());
  }
  LaunchAddUpPartials(partials.data(), chunks, args.columns, args.columns,
                      {.out = args.dbias, .accumulate = args.accumulate_dbias});
}

template <bool kAccumulate, typename T>
void BackwardOf(const GeluBackwardArgs& args) {
  const Backward<kAccumulate, T> fn = {static_cast<const T*>(args.dy),
                                       static_cast<const T*>(args.x), static_cast<T*>(args.dx),
                                       static_cast<T*>(args.y), args.columns};
  const bool aligned =
      IsAligned16(args.dy) && IsAligned16(args.x) && IsAligned16(args.dx) && IsAligned16(args.y);
  if (args.dbias == nullptr) {
    LaunchElementwise(fn, args.rows * args.columns, aligned);
  } else {
    BackwardWithSums(fn, args, aligned);
  }
}

void GeluBackwardCuda(const GeluBackwardArgs& args) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    args.accumulate_dx ? BackwardOf<true, T>(args) : BackwardOf<false, T>(args);
  });
}

REGISTER_CUDA_KERNEL(gelu, GeluCuda);
REGISTER_CUDA_KERNEL(gelu_backward, GeluBackwardCuda);

}  // namespace
}  // namespace tessera
