#include "core/cuda/elementwise.h"
#include "tensor/ops/add/add_kernel.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

template <typename Y, typename X>
struct AddInPlace {
  Y* y;
  const X* x;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float sum[kCount], term[kCount];
    LoadFloats(y + i, sum);
    LoadFloats(x + i, term);
    UNROLL for (int j = 0; j < kCount; ++j) sum[j] += term[j];
    StoreFloats(sum, y + i);
  }
};

void AddInPlaceCuda(const AddInPlaceArgs& args) {
  WithFloatTypes(args.y_dtype, args.x_dtype, [&](auto y, auto x) {
    using Y = decltype(y);
    using X = decltype(x);
    LaunchElementwise(AddInPlace<Y, X>{static_cast<Y*>(args.y), static_cast<const X*>(args.x)},
                      args.n, IsAligned16(args.y) && IsAligned16(args.x));
  });
}

REGISTER_CUDA_KERNEL(add_in_place, AddInPlaceCuda);

}  // namespace
}  // namespace tessera
