#include "core/cuda/column_sums.h"
#include "core/cuda/elementwise.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/scale_columns/scale_columns_kernel.h"

namespace tessera {
namespace {

// A group of elements lies in one row when columns is a multiple of its size.
template <typename T>
struct Scale {
  const T* x;
  const float* scale;
  T* y;
  int64_t columns;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float v[kCount], factors[kCount];
    LoadFloats(x + i, v);
    LoadFloats(scale + i % columns, factors);
    UNROLL for (int j = 0; j < kCount; ++j) v[j] *= factors[j];
    StoreFloats(v, y + i);
  }
};

template <typename T>
struct AddProducts {
  const T* dy;
  const T* x;
  int64_t columns;

  template <int kWidth>
  DEVICE void Run(int64_t row, int64_t column, float (&sums)[1][kWidth]) const {
    float d[kWidth], v[kWidth];
    LoadFloats(dy + row * columns + column, d);
    LoadFloats(x + row * columns + column, v);
    UNROLL for (int j = 0; j < kWidth; ++j) sums[0][j] = fmaf(d[j], v[j], sums[0][j]);
  }
};

template <typename T>
void LaunchScale(const void* x, const float* scale, void* y, int64_t rows, int64_t columns) {
  LaunchElementwise(
      Scale<T>{static_cast<const T*>(x), scale, static_cast<T*>(y), columns}, rows * columns,
      columns % kPackedElements == 0 && IsAligned16(x) && IsAligned16(scale) && IsAligned16(y));
}

void ScaleColumnsCuda(const ScaleColumnsArgs& args) {
  WithFloatType(args.dtype, [&](auto type) {
    LaunchScale<decltype(type)>(args.x, args.scale, args.y, args.rows, args.columns);
  });
}

template <int kWidth, typename T>
void SumProducts(const ScaleColumnsBackwardArgs& args) {
  LaunchPartialColumnSums<kWidth, 1>(
      AddProducts<T>{static_cast<const T*>(args.dy), static_cast<const T*>(args.x), args.columns},
      args.rows, args.columns, kScaleColumnsGrain, args.partials);
}

// Sums before dx may overwrite dy.
void ScaleColumnsBackwardCuda(const ScaleColumnsBackwardArgs& args) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    if (args.rows > 0) {
      if (args.columns % kPackedElements == 0 && IsAligned16(args.dy) && IsAligned16(args.x)) {
        SumProducts<kPackedElements, T>(args);
      } else {
        SumProducts<1, T>(args);
      }
      LaunchScale<T>(args.dy, args.scale, args.dx, args.rows, args.columns);
    }
  });
  LaunchAddUpPartials(args.partials, CeilDiv(args.rows, kScaleColumnsGrain), args.columns,
                      args.columns, {.out = args.dscale, .accumulate = args.accumulate});
}

REGISTER_CUDA_KERNEL(scale_columns, ScaleColumnsCuda);
REGISTER_CUDA_KERNEL(scale_columns_backward, ScaleColumnsBackwardCuda);

}  // namespace
}  // namespace tessera
