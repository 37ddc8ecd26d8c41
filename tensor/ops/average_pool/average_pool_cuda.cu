#include "core/cuda/elementwise.h"
#include "tensor/ops/average_pool/average_pool_kernel.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

// A group of elements lies in one pixel when channels is a multiple of its size.
template <typename X, typename Y>
struct Pool {
  const X* x;
  Y* y;
  int64_t height, width, channels;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    const int64_t out_height = (height + 1) / 2, out_width = (width + 1) / 2;
    const int64_t pixel = i / channels, row = pixel / out_width;
    const int64_t left = pixel % out_width * 2, top = row % out_height * 2;
    const X* image = x + row / out_height * height * width * channels + i % channels;
    float sum[kCount] = {};
    for (int64_t r = top; r < top + 2 && r < height; ++r) {
      for (int64_t column = left; column < left + 2 && column < width; ++column) {
        float v[kCount];
        LoadFloats(image + (r * width + column) * channels, v);
        UNROLL for (int j = 0; j < kCount; ++j) sum[j] += v[j];
      }
    }
    UNROLL for (int j = 0; j < kCount; ++j) sum[j] *= 0.25f;
    StoreFloats(sum, y + i);
  }
};

template <typename DY, typename DX>
struct Spread {
  const DY* dy;
  DX* dx;
  int64_t height, width, channels;
  bool accumulate;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    const int64_t out_height = (height + 1) / 2, out_width = (width + 1) / 2;
    const int64_t pixel = i / channels, row = pixel / width;
    const int64_t out_row = row / height * out_height + row % height / 2;
    float d[kCount], v[kCount] = {};
    LoadFloats(dy + (out_row * out_width + pixel % width / 2) * channels + i % channels, d);
    if (accumulate) LoadFloats(dx + i, v);
    UNROLL for (int j = 0; j < kCount; ++j) v[j] = fmaf(d[j], 0.25f, v[j]);
    StoreFloats(v, dx + i);
  }
};

void AveragePoolCuda(const AveragePoolArgs& args) {
  WithFloatTypes(args.x_dtype, args.y_dtype, [&](auto x_type, auto y_type) {
    using X = decltype(x_type);
    using Y = decltype(y_type);
    const int64_t n = args.batch * ((args.height + 1) / 2) * ((args.width + 1) / 2) * args.channels;
    LaunchElementwise(
        Pool<X, Y>{static_cast<const X*>(args.x), static_cast<Y*>(args.y), args.height, args.width,
                   args.channels},
        n, args.channels % kPackedElements == 0 && IsAligned16(args.x) && IsAligned16(args.y));
  });
}

void AveragePoolBackwardCuda(const AveragePoolBackwardArgs& args) {
  WithFloatTypes(args.dy_dtype, args.dx_dtype, [&](auto dy_type, auto dx_type) {
    using DY = decltype(dy_type);
    using DX = decltype(dx_type);
    LaunchElementwise(
        Spread<DY, DX>{static_cast<const DY*>(args.dy), static_cast<DX*>(args.dx), args.height,
                       args.width, args.channels, args.accumulate},
        args.batch * args.height * args.width * args.channels,
        args.channels % kPackedElements == 0 && IsAligned16(args.dy) && IsAligned16(args.dx));
  });
}

REGISTER_CUDA_KERNEL(average_pool, AveragePoolCuda);
REGISTER_CUDA_KERNEL(average_pool_backward, AveragePoolBackwardCuda);

}  // namespace
}  // namespace tessera
