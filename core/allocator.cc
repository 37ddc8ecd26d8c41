#include "core/allocator.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <mutex>
#include <tuple>
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

constexpr int64_t kSegmentBytes = int64_t{64} << 20;
constexpr int64_t kPageBytes = int64_t{2} << 20;  // of huge pages, on the CPU and on GPUs
constexpr int64_t kBlockAlignment = 256;          // what kernels on GPUs load fastest from
static_assert(kBlockAlignment % kTensorAlignment == 0);
#ifdef __SANITIZE_ADDRESS__
constexpr int64_t kRedZoneBytes = 64;  // between blocks, out of bounds to AddressSanitizer
#else
constexpr int64_t kRedZoneBytes = 0;
#endif

constexpr int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

std::atomic<OutOfMemoryHandler> out_of_memory_handler{nullptr};

[[noreturn]] void FailOutOfMemory(int64_t bytes) {
  if (const OutOfMemoryHandler handler = out_of_memory_handler) handler(bytes);
  LOG(FATAL) << "out of memory: " << bytes << " bytes wanted";
  __builtin_unreachable();
}

bool IsSmaller(const MemoryBlock* a, const MemoryBlock* b) {
  return std::tie(a->bytes, a->data) < std::tie(b->bytes, b->data);
}

class CachingAllocator {
 public:
  explicit CachingAllocator(DeviceRuntime& runtime) : runtime_(runtime) {}

  MemoryBlock* Allocate(int64_t bytes) {
    CHECK(bytes >= 0 && bytes < int64_t{1} << 60) << bytes << " bytes wanted";
    const int64_t size = RoundUp(std::max(bytes, int64_t{1}) + kRedZoneBytes, kBlockAlignment);
    std::unique_lock lock(mutex_);
    MemoryBlock* block = TakeSmallest(size);
    if (block == nullptr && AddSegment(size)) block = TakeSmallest(size);
    if (block == nullptr) {
      lock.unlock();
      FailOutOfMemory(bytes);
    }
    stats_.bytes_in_use += block->bytes;
    stats_.peak_bytes_in_use = std::max(stats_.peak_bytes_in_use, stats_.bytes_in_use);
    ASAN_UNPOISON_MEMORY_REGION(block->data, bytes);
    if (poison_) runtime_.Fill(block->data, 0xFF, bytes);
    return block;
  }

  void Deallocate(MemoryBlock* block) {
    std::lock_guard lock(mutex_);
    stats_.bytes_in_use -= block->bytes;
    if (poison_) {
      ASAN_UNPOISON_MEMORY_REGION(block->data, block->bytes);
      runtime_.Fill(block->data, 0xFF, block->bytes);
    }
    ASAN_POISON_MEMORY_REGION(block->data, block->bytes);
    if (block->next != nullptr && block->next->free) {
      RemoveFree(block->next);
      JoinNext(block);
    }
    if (block->previous != nullptr && block->previous->free) {
      block = block->previous;
      RemoveFree(block);
      JoinNext(block);
    }
    InsertFree(block);
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
  // The smallest free block of at least `size`, cut to it, or null.
  MemoryBlock* TakeSmallest(int64_t size) {
    const auto at = std::partition_point(free_.begin(), free_.end(),
                                         [size](const MemoryBlock* b) { return b->bytes < size; });
    if (at == free_.end()) return nullptr;
    MemoryBlock* const block = *at;
    free_.erase(at);
    block->free = false;
    if (block->bytes > size) {
      MemoryBlock* const rest = NewBlock();
      *rest = {block->data + size, block->bytes - size, block, block->next};
      if (rest->next != nullptr) rest->next->previous = rest;
      block->next = rest;
      block->bytes = size;
      InsertFree(rest);
    }
    return block;
  }

  void InsertFree(MemoryBlock* block) {
    block->free = true;
    free_.insert(std::lower_bound(free_.begin(), free_.end(), block, IsSmaller), block);
  }
  void RemoveFree(MemoryBlock* block) {
    block->free = false;
    free_.erase(std::lower_bound(free_.begin(), free_.end(), block, IsSmaller));
  }

  // Adds the block behind it to a block.
  void JoinNext(MemoryBlock* block) {
    MemoryBlock* const next = block->next;
    block->bytes += next->bytes;
    block->next = next->next;
    if (block->next != nullptr) block->next->previous = block;
    unused_.push_back(next);
  }

  // The lists have room for all blocks that ever were, so that giving one back never allocates.
  MemoryBlock* NewBlock() {
    if (unused_.empty()) {
      unused_.push_back(&blocks_.emplace_back());
      if (free_.capacity() < blocks_.size()) free_.reserve(2 * blocks_.size());
      if (unused_.capacity() < blocks_.size()) unused_.reserve(2 * blocks_.size());
    }
    MemoryBlock* const block = unused_.back();
    unused_.pop_back();
    return block;
  }

  // False if there is not enough memory left.
  bool AddSegment(int64_t size) {
    int64_t bytes = RoundUp(std::max(size, kSegmentBytes), kPageBytes);
    void* p = runtime_.Allocate(bytes);
    if (p == nullptr) {
      ReleaseLocked();
      bytes = RoundUp(size, kPageBytes);
      p = runtime_.Allocate(bytes);
    }
    if (p == nullptr) return false;
    ASAN_POISON_MEMORY_REGION(p, bytes);
    MemoryBlock* const block = NewBlock();
    *block = {.data = static_cast<char*>(p), .bytes = bytes};
    InsertFree(block);
    stats_.bytes_reserved += bytes;
    ++stats_.num_system_allocs;
    return true;
  }

  void ReleaseLocked() {
    // Kernels that were started may still use them.
    if (!free_.empty()) runtime_.Synchronize();
    std::erase_if(free_, [this](MemoryBlock* block) {
      if (block->previous != nullptr || block->next != nullptr) return false;
      ASAN_UNPOISON_MEMORY_REGION(block->data, block->bytes);
      runtime_.Free(block->data, block->bytes);
      stats_.bytes_reserved -= block->bytes;
      unused_.push_back(block);
      return true;
    });
  }

  DeviceRuntime& runtime_;
  std::mutex mutex_;
  std::deque<MemoryBlock> blocks_;
  std::vector<MemoryBlock*> unused_;  // of blocks_, that stand for no memory
  std::vector<MemoryBlock*> free_;    // in the order of IsSmaller
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

MemoryBlock* Allocate(int64_t bytes, Device device) { return AllocatorOf(device).Allocate(bytes); }
void Deallocate(MemoryBlock* block, Device device) { AllocatorOf(device).Deallocate(block); }
void SetOutOfMemoryHandler(OutOfMemoryHandler handler) { out_of_memory_handler = handler; }
AllocatorStats GetAllocatorStats(Device device) { return AllocatorOf(device).stats(); }
void ResetPeakBytes(Device device) { AllocatorOf(device).ResetPeak(); }
void ReleaseCachedMemory(Device device) { AllocatorOf(device).Release(); }
void SetPoisonMemory(bool poison) {
  AllocatorOf(Device::kCpu).set_poison(poison);
  if (HasRuntime(Device::kCuda)) AllocatorOf(Device::kCuda).set_poison(poison);
}

}  // namespace tessera
