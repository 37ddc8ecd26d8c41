// Caching allocator of tensor memory.
//
// Memory comes from the system in segments of 64 MiB or more, which are cut into blocks: a request
// takes the smallest free block that holds it and leaves the rest free, and a block that is given
// back is joined with its free neighbours. A training step that repeats its shapes so needs no more
// memory than its peak, and makes no system call and no malloc after the first two. Each device has
// its own. A block that is given back may be handed out at once: on a device, what still uses it
// runs before whatever the next owner starts. Thread-safe.
#ifndef TESSERA_CORE_ALLOCATOR_H_
#define TESSERA_CORE_ALLOCATOR_H_

#include <cstdint>

#include "core/device.h"

namespace tessera {

inline constexpr int64_t kTensorAlignment = 64;  // bytes; a cache line and a full AVX-512 vector

// Memory that Allocate gave. All but `data` is for the allocator.
struct MemoryBlock {
  char* data = nullptr;  // of kTensorAlignment
  int64_t bytes = 0;
  // Next to it in the segment that both were cut from; null at its ends.
  MemoryBlock* previous = nullptr;
  MemoryBlock* next = nullptr;
  bool free = false;
};

struct AllocatorStats {
  int64_t bytes_in_use = 0;
  int64_t peak_bytes_in_use = 0;
  int64_t bytes_reserved = 0;     // all segments
  int64_t num_system_allocs = 0;  // segments asked for
};

// Returns at least `bytes` of uninitialised memory. When the system has none, even after all unused
// segments went back to it, the handler is called; without one, aborts.
MemoryBlock* Allocate(int64_t bytes, Device device);
void Deallocate(MemoryBlock* block, Device device);

// What is done when there is no memory for a request of this size; must not return.
using OutOfMemoryHandler = void (*)(int64_t bytes);
void SetOutOfMemoryHandler(OutOfMemoryHandler handler);

AllocatorStats GetAllocatorStats(Device device);
void ResetPeakBytes(Device device);
// Gives the segments that are wholly free back to the system.
void ReleaseCachedMemory(Device device);

// Fills memory with 0xFF bytes (NaN as float and bf16) on allocation and on release, for tests:
// what a kernel does not write, or reads after its release, shows up as NaN.
void SetPoisonMemory(bool poison);

}  // namespace tessera

#endif  // TESSERA_CORE_ALLOCATOR_H_
