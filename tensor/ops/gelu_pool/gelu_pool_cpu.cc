#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/gelu_pool/gelu_pool_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/gelu_pool/gelu_pool.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

// Row i of an image's cells.
template <typename T>
void PoolRow(const GeluPoolArgs& args, int64_t image, int64_t i) {
  const FloatTag df;
  const int64_t channels = args.channels, width = args.columns.size;
  const T* x = static_cast<const T*>(args.x) + image * args.rows.size * width * channels;
  float* y = args.y + (image * args.rows.cells + i) * args.columns.cells * channels;
  const int64_t top = args.rows.Begin(i), bottom = args.rows.End(i);
  for (int64_t j = 0; j < args.columns.cells; ++j) {
    const int64_t left = args.columns.Begin(j), right = args.columns.End(j);
    const FloatVec scale = hn::Set(df, 1.0f / static_cast<float>((bottom - top) * (right - left)));
    ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
      FloatVec sum = hn::Zero(df);
      for (int64_t row = top; row < bottom; ++row) {
        const T* pixel = x + (row * width + left) * channels + c;
        for (int64_t column = left; column < right; ++column, pixel += channels) {
          sum = hn::Add(sum, Gelu<float>(df, LoadF32N(df, pixel, lanes)));
        }
      }
      StoreF32N(hn::Mul(sum, scale), df, y + j * channels + c, lanes);
    });
  }
}

// Row `row` of an image of dx.
template <typename T>
void BackwardRow(const GeluPoolBackwardArgs& args, int64_t image, int64_t row) {
  const FloatTag df;
  const PooledAxis &rows = args.rows, &columns = args.columns;
  const int64_t channels = args.channels, width = columns.size;
  const int64_t first = (image * rows.size + row) * width * channels;
  const float* dy = args.dy + image * rows.cells * columns.cells * channels;
  for (int64_t column = 0; column < width; ++column) {
    const T* x = static_cast<const T*>(args.x) + first + column * channels;
    T* dx = static_cast<T*>(args.dx) + first + column * channels;
    ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
      FloatVec sum = hn::Zero(df);
      for (int64_t i = rows.FirstCell(row); i < rows.EndCell(row); ++i) {
        for (int64_t j = columns.FirstCell(column); j < columns.EndCell(column); ++j) {
          const int64_t area = (rows.End(i) - rows.Begin(i)) * (columns.End(j) - columns.Begin(j));
          const float* cell = dy + (i * columns.cells + j) * channels + c;
          sum = hn::MulAdd(LoadF32N(df, cell, lanes), hn::Set(df, 1.0f / static_cast<float>(area)),
                           sum);
        }
      }
      StoreF32N(hn::Mul(sum, GeluDerivative<T>(df, LoadF32N(df, x + c, lanes))), df, dx + c, lanes);
    });
  }
}

}  // namespace

void GeluPoolRow(const GeluPoolArgs& args, int64_t row) {
  WithFloatType(args.x_dtype, [&](auto type) {
    PoolRow<decltype(type)>(args, row / args.rows.cells, row % args.rows.cells);
  });
}

void GeluPoolBackwardRow(const GeluPoolBackwardArgs& args, int64_t row) {
  WithFloatType(args.x_dtype, [&](auto type) {
    BackwardRow<decltype(type)>(args, row / args.rows.size, row % args.rows.size);
  });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(GeluPoolRow);
HWY_EXPORT(GeluPoolBackwardRow);

void GeluPoolCpu(const GeluPoolArgs& args) {
  ParallelFor(args.batch * args.rows.cells, 1, [&](int64_t row, int64_t) {
    HWY_DYNAMIC_DISPATCH(GeluPoolRow)(args, row);
  });
}

void GeluPoolBackwardCpu(const GeluPoolBackwardArgs& args) {
  ParallelFor(args.batch * args.rows.size, 1, [&](int64_t row, int64_t) {
    HWY_DYNAMIC_DISPATCH(GeluPoolBackwardRow)(args, row);
  });
}

REGISTER_KERNEL(gelu_pool, Device::kCpu, GeluPoolCpu);
REGISTER_KERNEL(gelu_pool_backward, Device::kCpu, GeluPoolBackwardCpu);

}  // namespace
}  // namespace tessera
#endif
