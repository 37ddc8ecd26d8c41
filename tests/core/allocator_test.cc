#include "core/allocator.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace tessera {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;

MemoryBlock* Take(int64_t bytes) { return Allocate(bytes, Device::kCpu); }
void GiveBack(MemoryBlock* block) { Deallocate(block, Device::kCpu); }
int64_t Segments() { return GetAllocatorStats(Device::kCpu).num_system_allocs; }

TEST(Allocator, GivesAlignedBlocksOfAtLeastTheSizeAskedFor) {
  for (int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{255}, int64_t{257}, int64_t{4097},
                        2 * kMiB - 1, 2 * kMiB + 1, int64_t{10000001}, 100 * kMiB}) {
    MemoryBlock* const block = Take(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block->data) % kTensorAlignment, 0u) << bytes;
    std::memset(block->data, 1, bytes);
    GiveBack(block);
  }
}

TEST(Allocator, ServesARepeatedPatternFromItsCache) {
  const auto step = [] {
    MemoryBlock* const a = Take(100000);
    MemoryBlock* const b = Take(3000000);
    GiveBack(a);
    GiveBack(b);
  };
  step();
  const int64_t before = Segments();
  for (int i = 0; i < 10; ++i) step();
  EXPECT_EQ(Segments(), before);
}

// Whatever the order in which neighbours come back, the segment is whole again.
TEST(Allocator, JoinsFreeNeighbours) {
  ReleaseCachedMemory(Device::kCpu);
  for (const std::array<int, 3>& order : std::vector<std::array<int, 3>>{
           {0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}) {
    GiveBack(Take(300 * kMiB));  // a segment of this size
    const int64_t before = Segments();
    const std::array<MemoryBlock*, 3> blocks = {Take(90 * kMiB), Take(90 * kMiB), Take(90 * kMiB)};
    for (const int i : order) GiveBack(blocks[i]);
    GiveBack(Take(300 * kMiB));
    EXPECT_EQ(Segments(), before);
  }
}

TEST(Allocator, TakesTheSmallestFreeBlockThatFits) {
  ReleaseCachedMemory(Device::kCpu);
  GiveBack(Take(400 * kMiB));
  MemoryBlock* const large = Take(100 * kMiB);
  MemoryBlock* const between = Take(1);
  MemoryBlock* const small = Take(80 * kMiB);
  MemoryBlock* const last = Take(1);
  char* const expected = small->data;
  GiveBack(large);
  GiveBack(small);
  MemoryBlock* const taken = Take(75 * kMiB);
  EXPECT_EQ(taken->data, expected);
  for (MemoryBlock* block : {between, last, taken}) GiveBack(block);
}

TEST(Allocator, GivesUnusedSegmentsBackToTheSystem) {
  ReleaseCachedMemory(Device::kCpu);
  const int64_t before = GetAllocatorStats(Device::kCpu).bytes_reserved;
  MemoryBlock* const kept = Take(100 * kMiB);
  GiveBack(Take(200 * kMiB));
  EXPECT_GE(GetAllocatorStats(Device::kCpu).bytes_reserved, before + 300 * kMiB);
  ReleaseCachedMemory(Device::kCpu);
  EXPECT_LT(GetAllocatorStats(Device::kCpu).bytes_reserved, before + 200 * kMiB);
  std::memset(kept->data, 1, 100 * kMiB);
  GiveBack(kept);
  ReleaseCachedMemory(Device::kCpu);
  EXPECT_EQ(GetAllocatorStats(Device::kCpu).bytes_reserved, before);
}

TEST(Allocator, CountsWhatIsInUse) {
  const int64_t before = GetAllocatorStats(Device::kCpu).bytes_in_use;
  MemoryBlock* const block = Take(5 * kMiB);
  ResetPeakBytes(Device::kCpu);
  GiveBack(Take(kMiB));
  const AllocatorStats stats = GetAllocatorStats(Device::kCpu);
  EXPECT_NEAR(stats.bytes_in_use, before + 5 * kMiB, 1024);
  EXPECT_NEAR(stats.peak_bytes_in_use, before + 6 * kMiB, 1024);
  GiveBack(block);
  EXPECT_EQ(GetAllocatorStats(Device::kCpu).bytes_in_use, before);
}

// Threads that fill their blocks with a number of their own find it there again.
TEST(Allocator, GivesNoMemoryToTwoOwners) {
  const auto work = [](unsigned thread) {
    std::mt19937 random(thread);
    std::vector<std::pair<MemoryBlock*, int64_t>> owned;
    for (int i = 0; i < 3000; ++i) {
      if (owned.size() < 20 && random() % 2 == 0) {
        const int64_t bytes = random() % (random() % 8 == 0 ? 300000 : 2000);
        owned.emplace_back(Take(bytes), bytes);
        std::memset(owned.back().first->data, static_cast<int>(thread), bytes);
      } else if (!owned.empty()) {
        std::swap(owned[random() % owned.size()], owned.back());
        const auto [block, bytes] = owned.back();
        owned.pop_back();
        for (int64_t b = 0; b < bytes; ++b) ASSERT_EQ(block->data[b], static_cast<char>(thread));
        GiveBack(block);
      }
    }
    for (const auto& [block, bytes] : owned) GiveBack(block);
  };
  const int64_t before = GetAllocatorStats(Device::kCpu).bytes_in_use;
  std::vector<std::thread> threads;
  for (unsigned t = 1; t <= 4; ++t) threads.emplace_back(work, t);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(GetAllocatorStats(Device::kCpu).bytes_in_use, before);
}

TEST(Allocator, PoisonsFreshMemoryWithNan) {
  SetPoisonMemory(true);
  MemoryBlock* const block = Take(64);
  const float* const p = reinterpret_cast<const float*>(block->data);
  EXPECT_TRUE(std::isnan(p[0]) && std::isnan(p[15]));
  GiveBack(block);
  SetPoisonMemory(false);
}

TEST(AllocatorDeathTest, NamesTheSizeThatTheSystemDoesNotHave) {
  EXPECT_DEATH(Take(int64_t{1} << 59), "out of memory: 576460752303423488 bytes");
  EXPECT_DEATH(Take(-1), "-1 bytes wanted");
}

}  // namespace
}  // namespace tessera
