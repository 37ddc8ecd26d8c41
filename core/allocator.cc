#include "core/allocator.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "core/check.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#endif

namespace tessera {
namespace {

constexpr int64_t kMinBlockBytes = 256;
constexpr int64_t kHugePageBytes = int64_t{2} << 20;
constexpr int kClassesPerOctave = 8;
constexpr int kNumClasses = 64 * kClassesPerOctave;

// Index of the smallest class that holds `bytes`, and that class's size.
struct SizeClass {
  int index;
  int64_t bytes;
};

SizeClass ClassOf(int64_t bytes) {
  bytes = std::max(bytes, kMinBlockBytes);
  const int octave = std::bit_width(static_cast<uint64_t>(bytes - 1)) - 1;
  const int64_t step = (int64_t{1} << octave) / kClassesPerOctave;
  const int64_t steps = (bytes + step - 1) / step;  // in (8, 16]
  return {octave * kClassesPerOctave + static_cast<int>(steps - kClassesPerOctave - 1),
          steps * step};
}

void* SystemAllocate(int64_t bytes) {
  if (bytes < kHugePageBytes) {
    // The smallest classes are no multiples of the alignment, as aligned_alloc wants sizes to be.
    const int64_t lines = (bytes + kTensorAlignment - 1) / kTensorAlignment;
    return std::aligned_alloc(kTensorAlignment, lines * kTensorAlignment);
  }
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  madvise(p, bytes, MADV_HUGEPAGE);
  return p;
}

void SystemFree(void* p, int64_t bytes) {
  ASAN_UNPOISON_MEMORY_REGION(p, bytes);
  if (bytes < kHugePageBytes) {
    std::free(p);
  } else {
    munmap(p, bytes);
  }
}

// Free blocks of one class, linked through their first bytes.
struct FreeBlock {
  FreeBlock* next;
};

class CachingAllocator {
 public:
  void* Allocate(int64_t bytes) {
    const SizeClass size = ClassOf(bytes);
    std::lock_guard lock(mutex_);
    stats_.bytes_in_use += size.bytes;
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    void* p = free_[size.index];
    if (p != nullptr) {
      free_[size.index] = free_[size.index]->next;
      ASAN_UNPOISON_MEMORY_REGION(p, size.bytes);
    } else {
      p = SystemAllocate(size.bytes);
      CHECK(p != nullptr) << "out of memory: " << bytes << " bytes wanted, " << stats_.bytes_in_use
                          << " in use";
      stats_.bytes_reserved += size.bytes;
      ++stats_.num_system_allocs;
    }
    if (poison_) std::memset(p, 0xFF, size.bytes);
    // What was not asked for, and below what was given back, is out of bounds to AddressSanitizer.
    ASAN_POISON_MEMORY_REGION(static_cast<char*>(p) + bytes, size.bytes - bytes);
    return p;
  }

  void Deallocate(void* p, int64_t bytes) {
    const SizeClass size = ClassOf(bytes);
    std::lock_guard lock(mutex_);
    ASAN_UNPOISON_MEMORY_REGION(p, size.bytes);
    if (poison_) std::memset(p, 0xFF, size.bytes);
    stats_.bytes_in_use -= size.bytes;
    free_[size.index] = new (p) FreeBlock{free_[size.index]};
    ASAN_POISON_MEMORY_REGION(static_cast<char*>(p) + sizeof(FreeBlock),
                              size.bytes - sizeof(FreeBlock));
  }

  void Release() {
    std::lock_guard lock(mutex_);
    for (int index = 0; index < kNumClasses; ++index) {
      if (free_[index] == nullptr) continue;  // the sizes of the last classes overflow
      const int64_t octave_bytes = int64_t{1} << (index / kClassesPerOctave);
      const int64_t bytes =
          octave_bytes / kClassesPerOctave * (index % kClassesPerOctave + kClassesPerOctave + 1);
      while (free_[index] != nullptr) {
        FreeBlock* block = free_[index];
        free_[index] = block->next;
        SystemFree(block, bytes);
        stats_.bytes_reserved -= bytes;
      }
    }
  }

  AllocatorStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }
  void ResetPeak() {
    std::lock_guard lock(mutex_);
    stats_.peak_bytes_in_use = stats_.bytes_in_use;
  }
  void set_poison(bool poison) {
    std::lock_guard lock(mutex_);
    poison_ = poison;
  }

 private:
  std::mutex mutex_;
  std::array<FreeBlock*, kNumClasses> free_ = {};
  AllocatorStats stats_;
  bool poison_ = false;
};

// Never destroyed: tensors in static objects may outlive any order of destruction.
CachingAllocator& AllocatorOf(Device device) {
  static auto* const cpu = new CachingAllocator();
  CHECK(device == Device::kCpu) << "this build has no allocator for device " << Name(device);
  return *cpu;
}

}  // namespace

void* Allocate(int64_t bytes, Device device) { return AllocatorOf(device).Allocate(bytes); }
void Deallocate(void* ptr, int64_t bytes, Device device) {
  AllocatorOf(device).Deallocate(ptr, bytes);
}
AllocatorStats GetAllocatorStats(Device device) { return AllocatorOf(device).stats(); }
void ResetPeakBytes(Device device) { AllocatorOf(device).ResetPeak(); }
void ReleaseCachedMemory(Device device) { AllocatorOf(device).Release(); }
void SetPoisonMemory(bool poison) { AllocatorOf(Device::kCpu).set_poison(poison); }

}  // namespace tessera
