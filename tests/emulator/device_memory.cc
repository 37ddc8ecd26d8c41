#include "tests/emulator/device_memory.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/allocator.h"
#include "core/device_runtime.h"
#include "core/kernel.h"

namespace tessera::emulator {
namespace {

constexpr int64_t kArenaBytes = int64_t{64} << 30;  // of addresses
constexpr int64_t kPageBytes = 4096;
// Between blocks, out of bounds to AddressSanitizer.
constexpr int64_t kGapBytes = 256;
// Where Linux puts programs, heaps, libraries and stacks on x86-64, with sanitizers or without.
constexpr uint64_t kFirstHostAddress = 0x5500'0000'0000, kLastHostAddress = 0x7FFF'FFFF'FFFF;

struct Arena {
  char* begin = nullptr;
  int64_t used = 0;  // whole pages
  int users = 0;     // living DeviceMemoryAccess
  bool host_pointers_forbidden = false;

  bool Contains(uint64_t address) const {
    const uint64_t first = reinterpret_cast<uint64_t>(begin);
    return address >= first && address < first + kArenaBytes;
  }
};
Arena arena;

// Two integers side by side can look like an address, but hardly like one where there is memory.
bool IsMapped(uint64_t address) {
  unsigned char resident;
  void* const page = reinterpret_cast<void*>(address / kPageBytes * kPageBytes);
  return mincore(page, kPageBytes, &resident) == 0;
}

void Protect(int protection) {
  if (arena.used > 0 && mprotect(arena.begin, arena.used, protection) != 0) {
    std::perror("emulator: mprotect");
    std::abort();
  }
}

class EmulatedRuntime : public DeviceRuntime {
 public:
  std::string Problem() override { return ""; }
  std::string Description() override { return "emulated GPU"; }
  int64_t AvailableBytes() override { return int64_t{1} << 32; }

  // Addresses are not used again: a program of tests ends before they do.
  void* Allocate(int64_t bytes) override {
    if (arena.begin == nullptr) {
      void* p =
          mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (p == MAP_FAILED) return nullptr;
      arena.begin = static_cast<char*>(p);
    }
    const int64_t pages = (bytes + kGapBytes + kPageBytes - 1) / kPageBytes;
    char* const block = arena.begin + arena.used;
    if (arena.used + pages * kPageBytes > kArenaBytes) return nullptr;
    arena.used += pages * kPageBytes;
    if (arena.users > 0) Protect(PROT_READ | PROT_WRITE);
    return block;
  }
  void Free(void* p, int64_t bytes) override { madvise(p, bytes, MADV_DONTNEED); }

  void PinHostMemory(void*, int64_t) override {}
  void UnpinHostMemory(void*) override {}

  void Copy(void* to, const void* from, int64_t bytes, CopyKind) override {
    const DeviceMemoryAccess access;
    std::memcpy(to, from, bytes);
  }
  void Fill(void* p, uint8_t byte, int64_t bytes) override {
    const DeviceMemoryAccess access;
    std::memset(p, byte, bytes);
  }
  void Synchronize() override {}
};

[[maybe_unused]] const bool registered = [] {
  RegisterRuntime(Device::kCuda, new EmulatedRuntime());
  return true;
}();

}  // namespace

DeviceMemoryAccess::DeviceMemoryAccess() {
  if (arena.users++ == 0) Protect(PROT_READ | PROT_WRITE);
}
DeviceMemoryAccess::~DeviceMemoryAccess() {
  if (--arena.users == 0) Protect(PROT_NONE);
}

void TakePlaceOfCpu() { RedirectKernels(Device::kCpu, Device::kCuda); }

void ForbidHostPointers() { arena.host_pointers_forbidden = true; }

void CheckArgumentBytes(const char* kernel, const void* argument, int64_t bytes) {
  if (!arena.host_pointers_forbidden) return;
  for (int64_t at = 0; at + 8 <= bytes; at += 8) {
    uint64_t word;
    std::memcpy(&word, static_cast<const char*>(argument) + at, sizeof(word));
    if (word < kFirstHostAddress || word > kLastHostAddress || arena.Contains(word)) continue;
    if (!IsMapped(word)) continue;
    std::fprintf(stderr, "emulator: %s: an argument holds the host's address 0x%lx at byte %ld\n",
                 kernel, static_cast<unsigned long>(word), static_cast<long>(at));
    std::abort();
  }
}

}  // namespace tessera::emulator
