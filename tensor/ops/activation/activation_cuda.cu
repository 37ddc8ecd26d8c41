#include "core/cuda/column_sums.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/activation/activation_cuda.h"
#include "tensor/ops/activation/activation_kernel.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

template <Activation kActivation, typename T>
struct Forward {
  const T* x;
  T* y;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float v[kCount];
    LoadFloats(x + i, v);
    UNROLL for (int j = 0; j < kCount; ++j) v[j] = Activate<kActivation>(v[j]);
    StoreFloats(v, y + i);
  }
};

template <Activation kActivation, bool kAccumulate, typename T>
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
      d[j] *= ActivationDerivative<kActivation>(v[j]);
      result[j] = kAccumulate ? result[j] + d[j] : d[j];
    }
    StoreFloats(result, dx + i);
    if (y == nullptr) return;
    UNROLL for (int j = 0; j < kCount; ++j) v[j] = Activate<kActivation>(v[j]);
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

void ActivationCuda(const ActivationArgs& args) {
  WithActivation(args.activation, [&](auto activation) {
    constexpr Activation kActivation = decltype(activation)::value;
    WithFloatType(args.dtype, [&](auto type) {
      using T = decltype(type);
      LaunchElementwise(
          Forward<kActivation, T>{static_cast<const T*>(args.x), static_cast<T*>(args.y)}, args.n,
          IsAligned16(args.x) && IsAligned16(args.y));
    });
  });
}

template <typename Fn>
void BackwardWithSums(const Fn& fn, const ActivationBackwardArgs& args, bool aligned) {
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

template <Activation kActivation, bool kAccumulate, typename T>
void BackwardOf(const ActivationBackwardArgs& args) {
  const Backward<kActivation, kAccumulate, T> fn = {
      static_cast<const T*>(args.dy), static_cast<const T*>(args.x), static_cast<T*>(args.dx),
      static_cast<T*>(args.y), args.columns};
  const bool aligned =
      IsAligned16(args.dy) && IsAligned16(args.x) && IsAligned16(args.dx) && IsAligned16(args.y);
  if (args.dbias == nullptr) {
    LaunchElementwise(fn, args.rows * args.columns, aligned);
  } else {
    BackwardWithSums(fn, args, aligned);
  }
}

void ActivationBackwardCuda(const ActivationBackwardArgs& args) {
  WithActivation(args.activation, [&](auto activation) {
    constexpr Activation kActivation = decltype(activation)::value;
    WithFloatType(args.dtype, [&](auto type) {
      using T = decltype(type);
      args.accumulate_dx ? BackwardOf<kActivation, true, T>(args)
                         : BackwardOf<kActivation, false, T>(args);
    });
  });
}

REGISTER_CUDA_KERNEL(activation, ActivationCuda);
REGISTER_CUDA_KERNEL(activation_backward, ActivationBackwardCuda);

}  // namespace
}  // namespace tessera
