#include "core/allocator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace tessera {
namespace {

TEST(Allocator, GivesAlignedBlocksOfAtLeastTheSizeAskedFor) {
  for (int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{255}, int64_t{257}, int64_t{4097},
                        (int64_t{2} << 20) - 1, (int64_t{2} << 20) + 1, int64_t{10000001}}) {
    void* p = Allocate(bytes, Device::kCpu);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(p) % kTensorAlignment, 0u) << bytes;
    std::memset(p, 1, bytes);
    Deallocate(p, bytes, Device::kCpu);
  }
}

TEST(Allocator, ServesARepeatedPatternFromItsCache) {
  const auto step = [] {
    void* a = Allocate(100000, Device::kCpu);
    void* b = Allocate(3000000, Device::kCpu);
    Deallocate(a, 100000, Device::kCpu);
    Deallocate(b, 3000000, Device::kCpu);
  };
  step();
  const int64_t before = GetAllocatorStats(Device::kCpu).num_system_allocs;
  for (int i = 0; i < 10; ++i) step();
  EXPECT_EQ(GetAllocatorStats(Device::kCpu).num_system_allocs, before);
}

TEST(Allocator, GivesCachedMemoryBackToTheSystem) {
  Deallocate(Allocate(5000000, Device::kCpu), 5000000, Device::kCpu);
  ReleaseCachedMemory(Device::kCpu);
  const AllocatorStats stats = GetAllocatorStats(Device::kCpu);
  EXPECT_EQ(stats.bytes_reserved, stats.bytes_in_use);
}

TEST(Allocator, PoisonsFreshMemoryWithNan) {
  SetPoisonMemory(true);
  float* p = static_cast<float*>(Allocate(64, Device::kCpu));
  EXPECT_TRUE(std::isnan(p[0]) && std::isnan(p[15]));
  Deallocate(p, 64, Device::kCpu);
  SetPoisonMemory(false);
}

}  // namespace
}  // namespace tessera
