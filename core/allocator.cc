#include "core/allocator.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <mutex>
#include <vector>

#include "core/check.h"
#include "core/device_runtime.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#endif

namespace tessera {
namespace {

constexpr int64_t kMinBlockBytes = 256;
constexpr int kClassesPerOctave = 16;
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
  const int64_t steps = (bytes + step - 1) / step;  // in (16, 32]
  return {octave * kClassesPerOctave + static_cast<int>(steps - kClassesPerOctave - 1),
          steps * step};
}

std::atomic<OutOfMemoryHandler> out_of_memory_handler{nullptr};

[[noreturn]] void FailOutOfMemory(int64_t bytes) {
  if (const OutOfMemoryHandler handler = out_of_memory_handler) handler(bytes);
  LOG(FATAL) << "out of memory: " << bytes << " bytes wanted";
  __builtin_unreachable();
}

class CachingAllocator {
 public:
  explicit CachingAllocator(DeviceRuntime& runtime) : runtime_(runtime) {}

  void* Allocate(int64_t bytes) {
    const SizeClass size = ClassOf(bytes);
    std::unique_lock lock(mutex_);
    std::vector<void*>& free = classes_[size.index].free;
    if (free.empty() && !AddBlock(size)) {
      lock.unlock();
      FailOutOfMemory(bytes);
    }
    void* p = free.back();
    free.pop_back();
    stats_.bytes_in_use += size.bytes;
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    ASAN_UNPOISON_MEMORY_REGION(p, size.bytes);
    if (poison_) runtime_.Fill(p, 0xFF, size.bytes);
    // What was not asked for, and what was given back, is out of bounds to AddressSanitizer.
    ASAN_POISON_MEMORY_REGION(static_cast<char*>(p) + bytes, size.bytes - bytes);
    return p;
  }

  void Deallocate(void* p, int64_t bytes) {
    const SizeClass size = ClassOf(bytes);
    std::lock_guard lock(mutex_);
    ASAN_UNPOISON_MEMORY_REGION(p, size.bytes);
    if (poison_) runtime_.Fill(p, 0xFF, size.bytes);
    stats_.bytes_in_use -= size.bytes;
    classes_[size.index].free.push_back(p);
    ASAN_POISON_MEMORY_REGION(p, size.bytes);
  }

  void Release() {
    std::lock_guard lock(mutex_);
    ReleaseLocked();
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
  // All blocks of one size.
  struct Class {
    int64_t num_blocks = 0;
    std::vector<void*> free;  // has room for all of them, so that giving one back never allocates
  };

  // Puts a block from the system, that caching has spared so far, among the free ones; false if
  // there is no memory left.
  bool AddBlock(const SizeClass& size) {
    void* p = runtime_.Allocate(size.bytes);
    if (p == nullptr) {
      ReleaseLocked();  // blocks of other sizes
      p = runtime_.Allocate(size.bytes);
    }
    if (p == nullptr) return false;
    Class& blocks = classes_[size.index];
    blocks.free.reserve(++blocks.num_blocks);
    blocks.free.push_back(p);
    stats_.bytes_reserved += size.bytes;
    ++stats_.num_system_allocs;
    return true;
  }

  void ReleaseLocked() {
    for (int index = 0; index < kNumClasses; ++index) {
      Class& blocks = classes_[index];
      if (blocks.free.empty()) continue;  // the sizes of the last classes overflow
      // Kernels that were started may still use them.
      runtime_.Synchronize();
      const int64_t octave_bytes = int64_t{1} << (index / kClassesPerOctave);
      const int64_t bytes =
          octave_bytes / kClassesPerOctave * (index % kClassesPerOctave + kClassesPerOctave + 1);
      for (void* p : blocks.free) {
        ASAN_UNPOISON_MEMORY_REGION(p, bytes);
        runtime_.Free(p, bytes);
        stats_.bytes_reserved -= bytes;
        --blocks.num_blocks;
      }
      blocks.free.clear();
    }
  }

  DeviceRuntime& runtime_;
  std::mutex mutex_;
  std::array<Class, kNumClasses> classes_;
  AllocatorStats stats_;
  bool poison_ = false;
};

// Never destroyed: tensors in static objects may outlive any order of destruction.
CachingAllocator& AllocatorOf(Device device) {
  static auto* const cpu = new CachingAllocator(RuntimeOf(Device::kCpu));
  if (device == Device::kCpu) return *cpu;
  static auto* const cuda = new CachingAllocator(RuntimeOf(Device::kCuda));
  return *cuda;
}

}  // namespace

void* Allocate(int64_t bytes, Device device) { return AllocatorOf(device).Allocate(bytes); }
void Deallocate(void* ptr, int64_t bytes, Device device) {
  AllocatorOf(device).Deallocate(ptr, bytes);
}
void SetOutOfMemoryHandler(OutOfMemoryHandler handler) { out_of_memory_handler = handler; }
AllocatorStats GetAllocatorStats(Device device) { return AllocatorOf(device).stats(); }
void ResetPeakBytes(Device device) { AllocatorOf(device).ResetPeak(); }
void ReleaseCachedMemory(Device device) { AllocatorOf(device).Release(); }
void SetPoisonMemory(bool poison) {
  AllocatorOf(Device::kCpu).set_poison(poison);
  if (HasRuntime(Device::kCuda)) AllocatorOf(Device::kCuda).set_poison(poison);
}

}  // namespace tessera
