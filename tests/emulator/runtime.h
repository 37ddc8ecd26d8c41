// Runs the grid of a kernel on the CPU, block by block, one fiber per thread of the block. What it
// reports, it reports by ending the program with the kernel's name, block, thread and source line.
//
// Compiled without ThreadSanitizer, which sees only what kernels do: a barrier orders memory, while
// a shuffle, the end of a block or the start of the next do not. So a missing barrier, and blocks
// that write what others use, are races to it.
#ifndef TESSERA_TESTS_EMULATOR_RUNTIME_H_
#define TESSERA_TESTS_EMULATOR_RUNTIME_H_

#include <cstdint>
#include <string>

namespace tessera::emulator {

struct Dim3 {
  uint32_t x = 1, y = 1, z = 1;
  int64_t count() const { return int64_t{x} * y * z; }
};

// Where in the source a thread arrived.
struct Site {
  const char* file;
  int line;
  static constexpr Site Here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

// The order in which the threads of a block get their turns, and the blocks theirs.
enum class Order { kAscending, kDescending, kRandom };
void SetOrder(Order order);

struct Position {
  Dim3 thread, block, block_dim, grid_dim;
};
extern const Position* current;  // of the running thread

// One kernel of the program.
struct KernelRecord {
  // From __PRETTY_FUNCTION__ of a template <auto kKernel>.
  explicit KernelRecord(const char* pretty_function);
  const std::string& name;
  int64_t launches = 0;
  KernelRecord* next;
};

// Calls body(context) in every thread of every block. Threads come in whole warps of 32.
void RunGrid(KernelRecord& kernel, Dim3 grid, Dim3 block, int64_t dynamic_shared_bytes,
             void (*body)(void*), void* context);

[[noreturn]] void Fail(const char* what, Site site);

// ---- For kernels, through tests/emulator/device.h.

// Returns when all threads of the block are at the barrier; all must be at the same one.
void BlockBarrier(Site site);
void WarpBarrier(Site site);

// What all 32 lanes of a warp do together: each gives 32-bit words and gets some. The last lane to
// arrive calls combine(words, in, out) for all.
using Combine = void (*)(int words, const uint32_t* const* in, uint32_t* const* out);
void WarpCollective(Site site, Combine combine, int words, const uint32_t* in, uint32_t* out);
// in: words, then the source lane.
void CombineShuffle(int words, const uint32_t* const* in, uint32_t* const* out);
// in: 0 or 1; out: one bit per lane.
void CombineBallot(int words, const uint32_t* const* in, uint32_t* const* out);
// in: the row of four words whose address the lane gave; out: `words` matrices of 8x8.
void CombineLoadMatrix(int words, const uint32_t* const* in, uint32_t* const* out);
void CombineLoadMatrixTransposed(int words, const uint32_t* const* in, uint32_t* const* out);
// in: a[4], b[2], c[4]; out: d[4].
void CombineMma16816(int words, const uint32_t* const* in, uint32_t* const* out);

// Shared memory of the running block, poisoned at its start: the region of `key`, or the dynamic
// part.
void* SharedStatic(const void* key, int64_t bytes);
void* SharedDynamic();

// Copies to shared memory that may run until they are waited for.
struct AsyncCopy {
  void* to;
  const void* from;  // null for zeros
};
void PushCopy(const AsyncCopy& copy);
void CommitCopies();
// The next copy of the running thread that belongs to none of its `newest` last groups, or false.
bool PopCopy(int newest, AsyncCopy* copy);

}  // namespace tessera::emulator

#endif  // TESSERA_TESTS_EMULATOR_RUNTIME_H_
