#include "core/device_runtime.h"

#include <sys/mman.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "core/allocator.h"
#include "core/check.h"
#include "core/parallel.h"

namespace tessera {
namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;

class CpuRuntime : public DeviceRuntime {
 public:
  std::string Problem() override { return ""; }
  std::string Description() override { return "CPU"; }
  int64_t AvailableBytes() override { return std::numeric_limits<int64_t>::max(); }

  // Mapped at a multiple of the size of huge pages, so that all of it can be made of them.
  void* Allocate(int64_t bytes) override {
    void* const mapped = mmap(nullptr, bytes + kHugePageBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    char* const begin = static_cast<char*>(mapped);
    const int64_t before = -reinterpret_cast<intptr_t>(begin) & (kHugePageBytes - 1);
    if (before > 0) munmap(begin, before);
    char* const p = begin + before;
    munmap(p + bytes, kHugePageBytes - before);
    madvise(p, bytes, MADV_HUGEPAGE);
    if (HasRuntime(Device::kCuda)) RuntimeOf(Device::kCuda).PinHostMemory(p, bytes);
    return p;
  }

  void Free(void* p, int64_t bytes) override {
    if (HasRuntime(Device::kCuda)) RuntimeOf(Device::kCuda).UnpinHostMemory(p);
    munmap(p, bytes);
  }

  void PinHostMemory(void*, int64_t) override {}
  void UnpinHostMemory(void*) override {}

  void Copy(void* to, const void* from, int64_t bytes, CopyKind) override {
    std::memcpy(to, from, bytes);
  }
  void Fill(void* p, uint8_t byte, int64_t bytes) override {
    constexpr int64_t kGrain = int64_t{4} << 20;  // bytes
    char* const memory = static_cast<char*>(p);
    // In parallel for the sake of fresh memory, whose pages the system clears as they are touched.
    ParallelFor(bytes, kGrain, [=](int64_t begin, int64_t end) {
      std::memset(memory + begin, byte, end - begin);
    });
  }
  void Synchronize() override {}
};

std::array<DeviceRuntime*, kNumDevices>& Runtimes() {
  static std::array<DeviceRuntime*, kNumDevices> runtimes = {new CpuRuntime()};
  return runtimes;
}

}  // namespace

void RegisterRuntime(Device device, DeviceRuntime* runtime) {
  Runtimes()[static_cast<int>(device)] = runtime;
}

bool HasRuntime(Device device) { return Runtimes()[static_cast<int>(device)] != nullptr; }

DeviceRuntime& RuntimeOf(Device device) {
  DeviceRuntime* runtime = Runtimes()[static_cast<int>(device)];
  CHECK(runtime != nullptr) << "this build can not use device " << Name(device)
                            << "; configure with -DTESSERA_CUDA=ON";
  return *runtime;
}

}  // namespace tessera
