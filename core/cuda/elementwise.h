// Kernels that treat every element alike, 8 per thread in accesses of 16 bytes.
#ifndef TESSERA_CORE_CUDA_ELEMENTWISE_H_
#define TESSERA_CORE_CUDA_ELEMENTWISE_H_

#include <cstdint>

#include "core/cuda/device.h"
#include "core/cuda/launch.h"

namespace tessera {

inline constexpr int kPackedElements = 8;

inline bool IsAligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// fn.template Run<kCount>(i) works on elements i to i + kCount - 1, kCount = kWidth or 1.
template <int kWidth, typename Fn>
KERNEL(256)
ElementwiseKernel(Fn fn, int64_t n) {
  const int64_t i = (int64_t{blockIdx.x} * 256 + threadIdx.x) * kWidth;
  if (i + kWidth <= n) {
    fn.template Run<kWidth>(i);
  } else {
    for (int64_t j = i; j < n; ++j) fn.template Run<1>(j);
  }
}

// Runs fn on n elements; `aligned`: all that it accesses at elements 0, 8, ... is aligned to 16
// bytes.
template <typename Fn>
void LaunchElementwise(const Fn& fn, int64_t n, bool aligned) {
  if (aligned) {
    Launch<ElementwiseKernel<kPackedElements, Fn>>({.x = CeilDiv(n, 256 * kPackedElements)},
                                                   {.x = 256}, 0, CurrentStream(), fn, n);
  } else {
    Launch<ElementwiseKernel<1, Fn>>({.x = CeilDiv(n, 256)}, {.x = 256}, 0, CurrentStream(), fn, n);
  }
}

}  // namespace tessera

#endif  // TESSERA_CORE_CUDA_ELEMENTWISE_H_
