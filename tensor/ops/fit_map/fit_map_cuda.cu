#include "core/cuda/elementwise.h"
#include "tensor/ops/fit_map/fit_map_kernel.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

template <typename T>
struct Fit {
  FitMapArgs args;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    const int64_t channel = i % args.channels, pixel = i / args.channels;
    const int64_t px = pixel % args.out_width, row = pixel / args.out_width;
    const int64_t py = row % args.out_height, image = row / args.out_height;
    float v[kCount] = {};
    if (px < args.width && py < args.height) {
      const int64_t from = (image * args.height + py) * args.width + px;
      LoadFloats(static_cast<const T*>(args.x) + from * args.channels + channel, v);
    }
    StoreFloats(v, static_cast<T*>(args.y) + i);
  }
};

void FitMapCuda(const FitMapArgs& args) {
  const int64_t n = args.batch * args.out_height * args.out_width * args.channels;
  const bool packs =
      args.channels % kPackedElements == 0 && IsAligned16(args.x) && IsAligned16(args.y);
  WithFloatType(args.dtype,
                [&](auto type) { LaunchElementwise(Fit<decltype(type)>{args}, n, packs); });
}

REGISTER_CUDA_KERNEL(fit_map, FitMapCuda);

}  // namespace
}  // namespace tessera
