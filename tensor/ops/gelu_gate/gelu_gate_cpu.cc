#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/gelu_gate/gelu_gate_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "core/parallel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/gelu_gate/gelu_gate.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

template <typename T>
void Forward(const T* x, const T* gate, T* y, int64_t n) {
  const FloatTag df;
  ForEachVector(df, n, [=](int64_t i, auto lanes) HWY_ATTR {
    const FloatVec active = Gelu<T>(df, LoadF32N(df, x + i, lanes));
    StoreF32N(hn::Mul(active, LoadF32N(df, gate + i, lanes)), df, y + i, lanes);
  });
}

template <typename T>
void Backward(T* dy_y, T* x_dx, T* gate_dgate, int64_t n) {
  const FloatTag df;
  ForEachVector(df, n, [=](int64_t i, auto lanes) HWY_ATTR {
    const FloatVec dy = LoadF32N(df, dy_y + i, lanes), x = LoadF32N(df, x_dx + i, lanes);
    const FloatVec gate = LoadF32N(df, gate_dgate + i, lanes);
    const FloatVec active = Gelu<T>(df, x);
    StoreF32N(hn::Mul(active, gate), df, dy_y + i, lanes);
    StoreF32N(hn::Mul(hn::Mul(dy, gate), GeluDerivative<T>(df, x)), df, x_dx + i, lanes);
    StoreF32N(hn::Mul(dy, active), df, gate_dgate + i, lanes);
  });
}

}  // namespace

void GeluGateChunk(const GeluGateArgs& args, int64_t begin, int64_t end) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    Forward(static_cast<const T*>(args.x) + begin, static_cast<const T*>(args.gate) + begin,
            static_cast<T*>(args.y) + begin, end - begin);
  });
}

void GeluGateBackwardChunk(const GeluGateBackwardArgs& args, int64_t begin, int64_t end) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    Backward(static_cast<T*>(args.dy_y) + begin, static_cast<T*>(args.x_dx) + begin,
             static_cast<T*>(args.gate_dgate) + begin, end - begin);
  });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(GeluGateChunk);
HWY_EXPORT(GeluGateBackwardChunk);

constexpr int64_t kGrain = int64_t{1} << 14;

void GeluGateCpu(const GeluGateArgs& args) {
  ParallelFor(args.n, kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GeluGateChunk)(args, begin, end);
  });
}

void GeluGateBackwardCpu(const GeluGateBackwardArgs& args) {
  ParallelFor(args.n, kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(GeluGateBackwardChunk)(args, begin, end);
  });
}

REGISTER_KERNEL(gelu_gate, Device::kCpu, GeluGateCpu);
REGISTER_KERNEL(gelu_gate_backward, Device::kCpu, GeluGateBackwardCpu);

}  // namespace
}  // namespace tessera
#endif
