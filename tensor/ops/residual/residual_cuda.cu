#include "core/cuda/elementwise.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/residual/residual_kernel.h"

namespace tessera {
namespace {

// kScaled: a group of elements lies in one sample when n is a multiple of its size.
template <bool kScaled, typename R>
struct AddResidual {
  const float* x;
  const R* r;
  const float* scale;
  float* y;
  int64_t n;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float sum[kCount], term[kCount];
    LoadFloats(x + i, sum);
    LoadFloats(r + i, term);
    const float factor = kScaled ? scale[i / n] : 1.0f;
    UNROLL for (int j = 0; j < kCount; ++j) sum[j] = fmaf(term[j], factor, sum[j]);
    StoreFloats(sum, y + i);
  }
};

template <typename Y>
struct ScaleSamples {
  const float* x;
  const float* scale;
  Y* y;
  int64_t n;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float v[kCount];
    LoadFloats(x + i, v);
    const float factor = scale[i / n];
    UNROLL for (int j = 0; j < kCount; ++j) v[j] *= factor;
    StoreFloats(v, y + i);
  }
};

void AddResidualCuda(const AddResidualArgs& args) {
  WithFloatType(args.r_dtype, [&](auto type) {
    using R = decltype(type);
    const R* r = static_cast<const R*>(args.r);
    const bool aligned = IsAligned16(args.x) && IsAligned16(args.r) && IsAligned16(args.y);
    const int64_t size = args.batch * args.n;
    if (args.scale == nullptr) {
      LaunchElementwise(AddResidual<false, R>{args.x, r, nullptr, args.y, args.n}, size, aligned);
    } else {
      LaunchElementwise(AddResidual<true, R>{args.x, r, args.scale, args.y, args.n}, size,
                        aligned && args.n % kPackedElements == 0);
    }
  });
}

void ScaleSamplesCuda(const ScaleSamplesArgs& args) {
  WithFloatType(args.y_dtype, [&](auto type) {
    using Y = decltype(type);
    LaunchElementwise(ScaleSamples<Y>{args.x, args.scale, static_cast<Y*>(args.y), args.n},
                      args.batch * args.n,
                      IsAligned16(args.x) && IsAligned16(args.y) && args.n % kPackedElements == 0);
  });
}

REGISTER_CUDA_KERNEL(add_residual, AddResidualCuda);
REGISTER_CUDA_KERNEL(scale_samples, ScaleSamplesCuda);

}  // namespace
}  // namespace tessera
