#include "core/cuda/elementwise.h"
#include "tensor/ops/cast/cast_kernel.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

template <typename X, typename Y>
struct Convert {
  const X* x;
  Y* y;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float v[kCount];
    LoadFloats(x + i, v);
    StoreFloats(v, y + i);
  }
};

void CastCuda(const CastArgs& args) {
  WithFloatTypes(args.x_dtype, args.y_dtype, [&](auto x, auto y) {
    using X = decltype(x);
    using Y = decltype(y);
    LaunchElementwise(Convert<X, Y>{static_cast<const X*>(args.x), static_cast<Y*>(args.y)}, args.n,
                      IsAligned16(args.x) && IsAligned16(args.y));
  });
}

REGISTER_CUDA_KERNEL(cast, CastCuda);

}  // namespace
}  // namespace tessera
