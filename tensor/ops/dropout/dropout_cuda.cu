#include "core/cuda/elementwise.h"
#include "tensor/ops/dropout/dropout_kernel.h"
#include "tensor/ops/float_types.h"

namespace tessera {
namespace {

struct RandomWords {
  uint32_t w[4];
};

// Words 4 * block to 4 * block + 3 of the stream: Philox4x32-10, as in core/random.h.
DEVICE RandomWords PhiloxBlock(const DropoutArgs& args, uint32_t block) {
  uint32_t c0 = block, c1 = 0, c2 = args.nonce[0], c3 = args.nonce[1];
  uint32_t k0 = args.key[0], k1 = args.key[1];
  UNROLL for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

template <typename T>
struct DropElements {
  DropoutArgs args;

  template <int kCount>
  DEVICE void Run(int64_t i) const {
    float v[kCount];
    LoadFloats(static_cast<const T*>(args.x) + i, v);
    RandomWords words = {};
    UNROLL for (int j = 0; j < kCount; ++j) {
      if (j % 4 == 0) words = PhiloxBlock(args, static_cast<uint32_t>((i + j) / 4));
      const uint32_t word = words.w[kCount == 1 ? i % 4 : j % 4];
      v[j] = word < args.threshold ? 0.0f : v[j] * args.scale;
    }
    StoreFloats(v, static_cast<T*>(args.y) + i);
  }
};

void DropoutCuda(const DropoutArgs& args) {
  WithFloatType(args.dtype, [&](auto type) {
    LaunchElementwise(DropElements<decltype(type)>{args}, args.n,
                      IsAligned16(args.x) && IsAligned16(args.y));
  });
}

REGISTER_CUDA_KERNEL(dropout, DropoutCuda);

}  // namespace
}  // namespace tessera
