#include "core/cuda/elementwise.h"
#include "tensor/ops/activation/gelu_cuda.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/gelu_gate/gelu_gate_kernel.h"

namespace tessera {
namespace {

template <typename T>
struct Forward {
  const T* x;
  const T* gate;
  T* y;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float v[kCount], g[kCount];
    LoadFloats(x + i, v);
    LoadFloats(gate + i, g);
    UNROLL for (int j = 0; j < kCount; ++j) v[j] = GeluOf(v[j]) * g[j];
    StoreFloats(v, y + i);
  }
};

template <typename T>
struct Backward {
  T* dy_y;
  T* x_dx;
  T* gate_dgate;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float dy[kCount], x[kCount], gate[kCount];
    LoadFloats(dy_y + i, dy);
    LoadFloats(x_dx + i, x);
    LoadFloats(gate_dgate + i, gate);
    UNROLL for (int j = 0; j < kCount; ++j) {
      const float active = GeluOf(x[j]), d = dy[j];
      dy[j] = active * gate[j];
      x[j] = d * gate[j] * GeluDerivativeOf(x[j]);
      gate[j] = d * active;
    }
    StoreFloats(dy, dy_y + i);
    StoreFloats(x, x_dx + i);
    StoreFloats(gate, gate_dgate + i);
  }
};

void GeluGateCuda(const GeluGateArgs& args) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    LaunchElementwise(Forward<T>{static_cast<const T*>(args.x), static_cast<const T*>(args.gate),
                                 static_cast<T*>(args.y)},
                      args.n, IsAligned16(args.x) && IsAligned16(args.gate) && IsAligned16(args.y));
  });
}

void GeluGateBackwardCuda(const GeluGateBackwardArgs& args) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    LaunchElementwise(
        Backward<T>{static_cast<T*>(args.dy_y), static_cast<T*>(args.x_dx),
                    static_cast<T*>(args.gate_dgate)},
        args.n, IsAligned16(args.dy_y) && IsAligned16(args.x_dx) && IsAligned16(args.gate_dgate));
  });
}

REGISTER_CUDA_KERNEL(gelu_gate, GeluGateCuda);
REGISTER_CUDA_KERNEL(gelu_gate_backward, GeluGateBackwardCuda);

}  // namespace
}  // namespace tessera
