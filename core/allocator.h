// Caching allocator of tensor memory.
//
// Sizes are rounded up to classes a sixteenth of a power of two apart; freed blocks are kept per
// class and handed out again, so a training step that repeats its shapes makes no system call and
// no malloc. Each device has its own. A block that is given back may be handed out at once: on a
// device, what still uses it runs before whatever the next owner starts. On the CPU, blocks of 2
// MiB and more are mapped with huge pages. Thread-safe.
#ifndef TESSERA_CORE_ALLOCATOR_H_
#define TESSERA_CORE_ALLOCATOR_H_

#include <cstdint>

#include "core/device.h"

namespace tessera {

inline constexpr int64_t kTensorAlignment = 64;  // bytes; a cache line and a full AVX-512 vector

struct AllocatorStats {
  int64_t bytes_in_use = 0;
  int64_t peak_bytes_in_use = 0;
  int64_t bytes_reserved = 0;     // in use and cached
  int64_t num_system_allocs = 0;  // requests that the cache could not serve
};

// Returns `bytes` of uninitialised memory aligned to kTensorAlignment. When the system has none,
// even after all cached blocks went back to it, the handler is called; without one, aborts.
void* Allocate(int64_t bytes, Device device);
void Deallocate(void* ptr, int64_t bytes, Device device);

// What is done when there is no memory for a request of this size; must not return.
using OutOfMemoryHandler = void (*)(int64_t bytes);
void SetOutOfMemoryHandler(OutOfMemoryHandler handler);

AllocatorStats GetAllocatorStats(Device device);
void ResetPeakBytes(Device device);
// Gives all cached blocks back to the system.
void ReleaseCachedMemory(Device device);

// Fills memory with 0xFF bytes (NaN as float and bf16) on allocation and on release, for tests:
// what a kernel does not write, or reads after its release, shows up as NaN.
void SetPoisonMemory(bool poison);

}  // namespace tessera

#endif  // TESSERA_CORE_ALLOCATOR_H_
