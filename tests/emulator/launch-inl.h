// Launch() on the emulator.
#ifndef TESSERA_TESTS_EMULATOR_LAUNCH_INL_H_
#define TESSERA_TESTS_EMULATOR_LAUNCH_INL_H_

#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime.h"

namespace tessera {

namespace emulator {

// Lists every kernel of the program that some function can launch.
template <auto kKernel>
struct Kernel {
  static KernelRecord record;
};
template <auto kKernel>
KernelRecord Kernel<kKernel>::record{KernelName<kKernel>()};

Dim3 ToDim3(const Extent& extent);

// A copy whose padding, which holds whatever was there before, is zero.
template <typename P>
P WithoutPadding(P p) {
  __builtin_clear_padding(&p);
  return p;
}

template <auto kKernel, typename... P>
void LaunchWith(void (*)(P...), const Extent& grid, const Extent& block, int64_t shared_bytes,
                std::tuple<P...> parameters) {
  std::apply(
      [](const P&... p) {
        (CheckArgument(Kernel<kKernel>::record.name.c_str(), WithoutPadding(p)), ...);
      },
      parameters);
  RunGrid(
      Kernel<kKernel>::record, ToDim3(grid), ToDim3(block), shared_bytes,
      [](void* context) { std::apply(kKernel, *static_cast<const std::tuple<P...>*>(context)); },
      &parameters);
}

}  // namespace emulator

template <auto kKernel, typename... Args>
void Launch(const Extent& grid, const Extent& block, int64_t shared_bytes, Stream, Args... args) {
  emulator::LaunchWith<kKernel>(kKernel, grid, block, shared_bytes, {args...});
}

inline Stream CurrentStream() { return nullptr; }

}  // namespace tessera

#endif  // TESSERA_TESTS_EMULATOR_LAUNCH_INL_H_
