#include "core/cuda/elementwise.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/mean_pool/mean_pool_kernel.h"

namespace tessera {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;

// A block works on one image and 32 channels, its warps on every eighth pixel.
template <typename T>
KERNEL(kThreads)
PoolMeans(const T* x, float* y, int64_t pixels, int64_t channels) {
  SHARED_ARRAY(float, sums, kThreads);
  const int64_t c = int64_t{blockIdx.y} * kWarpSize + Lane();
  const T* image = x + blockIdx.x * pixels * channels;
  float sum = 0;
  if (c < channels) {
    for (int64_t p = WarpIndex(); p < pixels; p += kWarps) sum += LoadFloat(image + p * channels + c);
  }
  sums[threadIdx.x] = sum;
  BLOCK_SYNC();
  if (WarpIndex() != 0 || c >= channels) return;
  float total = 0;
  UNROLL for (int w = 0; w < kWarps; ++w) total += sums[w * kWarpSize + Lane()];
  y[blockIdx.x * channels + c] = total / static_cast<float>(pixels);
}

// A group of elements lies in one pixel when channels is a multiple of its size.
template <typename T>
struct SpreadMeans {
  const float* dy;
  T* dx;
  int64_t pixels, channels;
  bool accumulate;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float mean[kCount], v[kCount] = {};
    LoadFloats(dy + i / (pixels * channels) * channels + i % channels, mean);
    if (accumulate) LoadFloats(dx + i, v);
    const float share = 1.0f / static_cast<float>(pixels);
    UNROLL for (int j = 0; j < kCount; ++j) v[j] = fmaf(mean[j], share, v[j]);
    StoreFloats(v, dx + i);
  }
};

void MeanPoolCuda(const MeanPoolArgs& args) {
  WithFloatType(args.x_dtype, [&](auto type) {
    using T = decltype(type);
    Launch<PoolMeans<T>>({args.batch, CeilDiv(args.channels, kWarpSize)}, {.x = kThreads}, 0,
                         CurrentStream(), static_cast<const T*>(args.x), args.y, args.pixels,
                         args.channels);
  });
}

void MeanPoolBackwardCuda(const MeanPoolBackwardArgs& args) {
  WithFloatType(args.dx_dtype, [&](auto type) {
    using T = decltype(type);
    const bool aligned =
        args.channels % kPackedElements == 0 && IsAligned16(args.dy) && IsAligned16(args.dx);
    LaunchElementwise(SpreadMeans<T>{args.dy, static_cast<T*>(args.dx), args.pixels, args.channels,
                                     args.accumulate},
                      args.batch * args.pixels * args.channels, aligned);
  });
}

REGISTER_CUDA_KERNEL(mean_pool, MeanPoolCuda);
REGISTER_CUDA_KERNEL(mean_pool_backward, MeanPoolBackwardCuda);

}  // namespace
}  // namespace tessera
