// Parallel loops on the one OpenMP pool, which oneDNN shares.
//
// A range is cut into chunks by its size alone, never by the number of threads, so that results,
// partial sums included, are the same bits for any number of threads.
#ifndef TESSERA_CORE_PARALLEL_H_
#define TESSERA_CORE_PARALLEL_H_

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace tessera {

// Number of chunks that ParallelFor makes of `n` items.
constexpr int64_t NumChunks(int64_t n, int64_t grain) { return (n + grain - 1) / grain; }

// Calls fn(begin, end) for every chunk [k*grain, min(n, (k+1)*grain)), in parallel and in no
// particular order. A call from inside a parallel region runs serially. `fn` must not throw.
template <typename Fn>
void ParallelFor(int64_t n, int64_t grain, Fn&& fn) {
  const int64_t chunks = NumChunks(n, grain);
  if (chunks <= 1 || omp_in_parallel()) {
    for (int64_t k = 0; k < chunks; ++k) fn(k * grain, std::min(n, (k + 1) * grain));
    return;
  }
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < chunks; ++k) fn(k * grain, std::min(n, (k + 1) * grain));
}

// Index of the calling thread inside the pool, from 0; for per-thread scratch memory only.
inline int ThreadIndex() { return omp_get_thread_num(); }
inline int NumThreads() { return omp_get_max_threads(); }

}  // namespace tessera

#endif  // TESSERA_CORE_PARALLEL_H_
