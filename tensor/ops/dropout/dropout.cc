#include "tensor/ops/dropout/dropout.h"

#include "tensor/ops/describe.h"
#include "tensor/ops/float_types.h"

namespace tessera {

constinit KernelSlot<void(const DropoutArgs&)> dropout("dropout");

namespace ops {

void DropoutTo(const Tensor& x, double rate, const RandomKey& key, const Tensor& y) {
  constexpr int64_t kMaxElements = int64_t{1} << 34;  // whose blocks count in 32 bits
  CHECK(x.numel() == y.numel() && x.dtype() == y.dtype() && IsFloat(x.dtype()) && rate >= 0 &&
        rate < 1 && x.numel() <= kMaxElements)
      << "dropout(" << rate << "): " << Describe(x) << " -> " << Describe(y);
  if (x.numel() == 0) return;
  dropout(x.device(), DropoutArgs{.x = x.raw(),
                                  .y = y.raw(),
                                  .n = x.numel(),
                                  .threshold = static_cast<uint32_t>(rate * 0x1p32),
                                  .scale = static_cast<float>(1 / (1 - rate)),
                                  .key = {key.key[0], key.key[1]},
                                  .nonce = {key.nonce[0], key.nonce[1]},
                                  .dtype = x.dtype()});
}

}  // namespace ops
}  // namespace tessera
