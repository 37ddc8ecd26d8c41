#include "tests/emulator/runtime.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/cuda/launch.h"
#include "tests/emulator/device_memory.h"
#include "tests/emulator/fiber.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#endif
#ifdef TESSERA_EMULATOR_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace tessera::emulator {

const Position* current = nullptr;

namespace {

constexpr int kWarpSize = 32;
constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxStaticShared = int64_t{48} << 10;
constexpr int64_t kMaxShared = int64_t{227} << 10;
constexpr int64_t kRedzone = 64;

enum class State { kReady, kAtBarrier, kInWarp, kDone };

// Two objects whose clocks barriers use in turn: with one, a thread that is already at the next
// barrier would order its newer accesses with those of threads that still leave this one.
struct SyncPair {
  char objects[2];
  int epoch = 0;
};

struct Warp {
  int arrived = 0;
  Site site;
  Combine combine = nullptr;
  const uint32_t* in[kWarpSize];
  uint32_t* out[kWarpSize];
  SyncPair sync;
};

struct QueuedCopy {
  AsyncCopy copy;
  int64_t group;
};

struct Pool;

struct Thread {
  Thread(Pool* pool, int index);

  Pool* pool;
  int index;
  Position position;
  State state = State::kDone;
  Site site = {"", 0};
  std::vector<QueuedCopy> copies;
  size_t first_copy = 0;
  int64_t committed_groups = 0;
  Fiber fiber;
};

struct SharedRegion {
  const void* key;
  char* data;
};

// What one block runs on. Blocks alternate between two pools that ThreadSanitizer does not see
// synchronise, so that blocks which touch each other's data are found.
struct Pool {
  std::vector<std::unique_ptr<Thread>> threads;
  std::array<Warp, kMaxThreads / kWarpSize> warps;
  int at_barrier = 0;
  const Thread* first_at_barrier = nullptr;
  SyncPair barrier;
  char block_end[2];  // in turn, by the number of blocks that the pool has run
  int64_t blocks = 0;
  std::vector<SharedRegion> regions;
  int64_t static_bytes = 0;     // as the device counts them
  int64_t static_reserved = 0;  // with redzones
  char* static_arena = nullptr;
  char* dynamic_arena = nullptr;
};

struct Launch {
  KernelRecord* kernel;
  Dim3 grid, block;
  int64_t dynamic_bytes;
  void (*body)(void*);
  void* context;
};

Pool pools[2];
Launch launch;
Thread* running = nullptr;
Order order = Order::kAscending;
KernelRecord* first_kernel = nullptr;
char launch_start, launch_end;

// The NaN 0x7FFF in every two bytes; a loop of our own, since memset is visible to ThreadSanitizer.
void FillWithNan(void* data, int64_t bytes) {
  auto* words = static_cast<volatile uint64_t*>(data);
  int64_t i = 0;
  for (; i < bytes / 8; ++i) words[i] = 0x7FFF7FFF7FFF7FFFu;
  auto* p = static_cast<volatile unsigned char*>(data);
  for (i *= 8; i < bytes; ++i) p[i] = i % 2 == 0 ? 0xFF : 0x7F;
}

// Tell ThreadSanitizer that what came before a Release of an object happens before what follows an
// Acquire of it.
void Acquire([[maybe_unused]] char* object) {
#ifdef TESSERA_EMULATOR_TSAN
  __tsan_acquire(object);
#endif
}
void Release([[maybe_unused]] char* object) {
#ifdef TESSERA_EMULATOR_TSAN
  __tsan_release(object);
#endif
}

bool SameSite(const Site& a, const Site& b) {
  return a.line == b.line && std::strcmp(a.file, b.file) == 0;
}

void PrintPlace(const char* prefix, const Thread& t) {
  std::fprintf(stderr, "%sthread (%u, %u, %u) of block (%u, %u, %u)", prefix, t.position.thread.x,
               t.position.thread.y, t.position.thread.z, t.position.block.x, t.position.block.y,
               t.position.block.z);
}

void WriteLaunchLog() {
  const char* path = std::getenv("TESSERA_EMULATOR_LOG");
  if (path == nullptr) return;
  std::FILE* file = std::fopen(path, "w");
  if (file == nullptr) return;
  for (const KernelRecord* k = first_kernel; k != nullptr; k = k->next) {
    std::fprintf(file, "%ld %s\n", static_cast<long>(k->launches), k->name.c_str());
  }
  std::fclose(file);
}

void Yield(Thread& t, State state) {
  t.state = state;
  t.fiber.Leave();
}

void ThreadMain(void* argument) {
  Thread& t = *static_cast<Thread*>(argument);
  for (;;) {
    Acquire(&launch_start);
    Acquire(&t.pool->block_end[(t.pool->blocks + 1) % 2]);
    launch.body(launch.context);
    if (t.first_copy != t.copies.size()) Fail("a thread ended before its copies did", t.site);
    Release(&t.pool->block_end[t.pool->blocks % 2]);
    Release(&launch_end);
    Yield(t, State::kDone);
  }
}

}  // namespace

namespace {

Thread::Thread(Pool* pool, int index) : pool(pool), index(index), fiber(&ThreadMain, this) {}

[[noreturn]] void FailStuck(const Pool& pool, int num_threads) {
  std::fprintf(stderr, "emulator: %s: the threads of a block wait for each other for ever:\n",
               launch.kernel->name.c_str());
  const Thread* last = nullptr;
  for (int i = 0; i < num_threads; ++i) {
    const Thread& t = *pool.threads[i];
    if (last != nullptr && last->state == t.state && last->site.line == t.site.line) continue;
    PrintPlace("  from ", t);
    const char* what = t.state == State::kDone        ? "has ended; its last stop was"
                       : t.state == State::kAtBarrier ? "waits at the barrier"
                                                      : "waits for its warp";
    std::fprintf(stderr, " %s %s:%d\n", what, t.site.file, t.site.line);
    last = &t;
  }
  std::abort();
}

char* NewArena(int64_t bytes) {
  auto* arena = static_cast<char*>(std::aligned_alloc(1024, bytes));
  ASAN_POISON_MEMORY_REGION(arena, bytes);
  return arena;
}

constexpr int64_t kStaticArena = 2 * kMaxStaticShared;
constexpr int64_t kDynamicArena = int64_t{228} << 10;

void PrepareShared(Pool& pool) {
  if (pool.static_arena == nullptr) {
    pool.static_arena = NewArena(kStaticArena);
    pool.dynamic_arena = NewArena(kDynamicArena);
  }
  ASAN_POISON_MEMORY_REGION(pool.static_arena, kStaticArena);
  ASAN_POISON_MEMORY_REGION(pool.dynamic_arena, kDynamicArena);
  pool.regions.clear();
  pool.static_bytes = pool.static_reserved = 0;
  ASAN_UNPOISON_MEMORY_REGION(pool.dynamic_arena, launch.dynamic_bytes);
  FillWithNan(pool.dynamic_arena, launch.dynamic_bytes);
}

struct Random {
  uint64_t state;
  uint64_t Below(uint64_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % n;
  }
};

template <typename Int>
void Arrange(std::vector<Int>& indices, Random& random) {
  if (order != Order::kRandom) return;
  for (size_t i = indices.size(); i > 1; --i) std::swap(indices[i - 1], indices[random.Below(i)]);
}

template <typename Int>
std::vector<Int> Indices(Int n) {
  std::vector<Int> indices(static_cast<size_t>(n));
  for (Int i = 0; i < n; ++i) indices[i] = order == Order::kDescending ? n - 1 - i : i;
  return indices;
}

Dim3 PositionIn(const Dim3& dim, int64_t index) {
  return {static_cast<uint32_t>(index % dim.x), static_cast<uint32_t>(index / dim.x % dim.y),
          static_cast<uint32_t>(index / dim.x / dim.y)};
}

void StartThreads(Pool& pool, const Dim3& block_index, int num_threads) {
  while (static_cast<int>(pool.threads.size()) < num_threads) {
    pool.threads.push_back(std::make_unique<Thread>(&pool, static_cast<int>(pool.threads.size())));
  }
  for (int i = 0; i < num_threads; ++i) {
    Thread& t = *pool.threads[i];
    t.position = {PositionIn(launch.block, i), block_index, launch.block, launch.grid};
    t.state = State::kReady;
    t.site = {"(none)", 0};
    t.copies.clear();
    t.first_copy = 0;
    t.committed_groups = 0;
  }
}

void RunBlock(Pool& pool, const Dim3& block_index, std::vector<int>& turns, Random& random) {
  const int num_threads = static_cast<int>(turns.size());
  PrepareShared(pool);
  StartThreads(pool, block_index, num_threads);
  for (int done = 0; done < num_threads;) {
    bool moved = false;
    Arrange(turns, random);
    for (const int i : turns) {
      Thread& t = *pool.threads[i];
      if (t.state != State::kReady) continue;
      moved = true;
      running = &t;
      current = &t.position;
      t.fiber.Enter();
      if (t.state == State::kDone) ++done;
    }
    if (!moved) FailStuck(pool, num_threads);
  }
  running = nullptr;
  current = nullptr;
  ++pool.blocks;
}

void CheckSizes(const Dim3& grid, const Dim3& block, int64_t dynamic_bytes) {
  const int64_t threads = block.count();
  const char* error = nullptr;
  if (threads < 1 || threads > kMaxThreads) error = "a block has 1 to 1024 threads";
  if (threads % kWarpSize != 0) error = "a block must be whole warps of 32 threads";
  if (block.z > 64 || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7FFFFFFF) {
    error = "a grid has at most 2^31 - 1, 65535 and 65535 blocks, a block 64 threads in z";
  }
  if (dynamic_bytes < 0 || dynamic_bytes > kMaxShared)
    error = "a block has 227 KB of shared memory";
  if (error == nullptr) return;
  std::fprintf(stderr, "emulator: %s: launched with (%u, %u, %u) x (%u, %u, %u), %ld bytes: %s\n",
               launch.kernel->name.c_str(), grid.x, grid.y, grid.z, block.x, block.y, block.z,
               static_cast<long>(dynamic_bytes), error);
  std::abort();
}

}  // namespace

namespace {

// Never freed: names are written when the program ends.
const std::string& NameIn(const std::string& pretty_function) {
  const std::string before = "kKernel = ";
  const size_t start = pretty_function.find(before) + before.size();
  return *new std::string(pretty_function, start, pretty_function.size() - start - 1);
}

}  // namespace

KernelRecord::KernelRecord(const char* pretty_function)
    : name(NameIn(pretty_function)), next(first_kernel) {
  if (first_kernel == nullptr) std::atexit(&WriteLaunchLog);
  first_kernel = this;
}

Dim3 ToDim3(const Extent& e) {
  const auto checked = [](int64_t n) {
    if (n >= 0 && n <= 0x7FFFFFFF) return static_cast<uint32_t>(n);
    std::fprintf(stderr, "emulator: a grid or block of %ld\n", static_cast<long>(n));
    std::abort();
  };
  return {checked(e.x), checked(e.y), checked(e.z)};
}

void SetOrder(Order new_order) { order = new_order; }

void RunGrid(KernelRecord& kernel, Dim3 grid, Dim3 block, int64_t dynamic_shared_bytes,
             void (*body)(void*), void* context) {
  launch = {&kernel, grid, block, dynamic_shared_bytes, body, context};
  CheckSizes(grid, block, dynamic_shared_bytes);
  if (grid.count() == 0) return;
  ++kernel.launches;
  const DeviceMemoryAccess access;
  std::vector<int> turns = Indices<int>(static_cast<int>(block.count()));
  std::vector<int64_t> blocks = Indices<int64_t>(grid.count());
  Random random{static_cast<uint64_t>(kernel.launches)};
  Arrange(blocks, random);
  Release(&launch_start);
  int parity = 0;
  for (const int64_t b : blocks) {
    RunBlock(pools[parity], PositionIn(grid, b), turns, random);
    parity ^= 1;
  }
  Acquire(&launch_end);
}

void Fail(const char* what, Site site) {
  std::fprintf(stderr, "emulator: %s: %s", launch.kernel->name.c_str(), what);
  if (running != nullptr) PrintPlace(", in ", *running);
  std::fprintf(stderr, ", at %s:%d\n", site.file, site.line);
  std::abort();
}

void BlockBarrier(Site site) {
  Thread& t = *running;
  Pool& pool = *t.pool;
  const int num_threads = static_cast<int>(launch.block.count());
  t.site = site;
  if (pool.at_barrier == 0) pool.first_at_barrier = &t;
  const Thread& first = *pool.first_at_barrier;
  if (!SameSite(first.site, site)) {
    PrintPlace("emulator: ", first);
    std::fprintf(stderr, " waits at the barrier %s:%d\n", first.site.file, first.site.line);
    Fail("a thread is at another barrier than the rest of its block", site);
  }
  char* object = &pool.barrier.objects[pool.barrier.epoch % 2];
  Release(object);
  if (++pool.at_barrier == num_threads) {
    pool.at_barrier = 0;
    ++pool.barrier.epoch;
    for (int i = 0; i < num_threads; ++i) pool.threads[i]->state = State::kReady;
  } else {
    Yield(t, State::kAtBarrier);
  }
  Acquire(object);
}

void WarpCollective(Site site, Combine combine, int words, const uint32_t* in, uint32_t* out) {
  Thread& t = *running;
  Warp& warp = t.pool->warps[t.index / kWarpSize];
  if (warp.arrived == 0) {
    warp.site = site;
    warp.combine = combine;
  } else if (warp.combine != combine || !SameSite(warp.site, site)) {
    std::fprintf(stderr, "emulator: other lanes are at %s:%d\n", warp.site.file, warp.site.line);
    Fail("a lane is at another warp operation than the rest of its warp", site);
  }
  t.site = site;
  const int lane = t.index % kWarpSize;
  warp.in[lane] = in;
  warp.out[lane] = out;
  if (++warp.arrived < kWarpSize) return Yield(t, State::kInWarp);
  warp.arrived = 0;
  ++warp.sync.epoch;
  if (combine != nullptr) combine(words, warp.in, warp.out);
  for (int i = 0; i < kWarpSize; ++i) {
    t.pool->threads[t.index - lane + i]->state = State::kReady;
  }
}

void WarpBarrier(Site site) {
  Warp& warp = running->pool->warps[running->index / kWarpSize];
  char* object = &warp.sync.objects[warp.sync.epoch % 2];
  Release(object);
  WarpCollective(site, nullptr, 0, nullptr, nullptr);
  Acquire(object);
}

void* SharedStatic(const void* key, int64_t bytes) {
  Pool& pool = *running->pool;
  for (const SharedRegion& region : pool.regions) {
    if (region.key == key) return region.data;
  }
  pool.static_bytes += (bytes + 15) / 16 * 16;
  if (pool.static_bytes > kMaxStaticShared)
    Fail("more than 48 KB of static shared memory", {"", 0});
  if (pool.static_bytes + launch.dynamic_bytes > kMaxShared) {
    Fail("more than 227 KB of shared memory", {"", 0});
  }
  char* data = pool.static_arena + pool.static_reserved;
  pool.static_reserved += (bytes + 127) / 128 * 128 + kRedzone * 2;
  if (pool.static_reserved > kStaticArena) Fail("too many shared arrays", {"", 0});
  ASAN_UNPOISON_MEMORY_REGION(data, bytes);
  FillWithNan(data, bytes);
  pool.regions.push_back({key, data});
  return data;
}

void* SharedDynamic() { return running->pool->dynamic_arena; }

void PushCopy(const AsyncCopy& copy) {
  running->copies.push_back({copy, running->committed_groups});
}

void CommitCopies() { ++running->committed_groups; }

bool PopCopy(int newest, AsyncCopy* copy) {
  Thread& t = *running;
  if (t.first_copy == t.copies.size()) return false;
  const QueuedCopy& first = t.copies[t.first_copy];
  if (first.group >= t.committed_groups - newest) return false;
  *copy = first.copy;
  ++t.first_copy;
  return true;
}

}  // namespace tessera::emulator
