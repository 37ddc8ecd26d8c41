// The GPU's side of core/cuda/device.h, for compute capability 8.0 and above.
#ifndef TESSERA_CORE_CUDA_DEVICE_PTX_H_
#define TESSERA_CORE_CUDA_DEVICE_PTX_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define KERNEL(max_threads) __global__ void __launch_bounds__(max_threads)
#define DEVICE __device__ __forceinline__
#define HOST_DEVICE __host__ __device__ __forceinline__
// For a parameter that is a large struct: read where it is, never copied.
#define GRID_CONSTANT const __grid_constant__
#define UNROLL _Pragma("unroll")

#define SHARED_ARRAY(T, name, n) __shared__ __align__(16) T name[n]
#define SHARED_DYNAMIC(T, name)                                    \
  extern __shared__ __align__(128) unsigned char dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(dynamic_shared)

#define BLOCK_SYNC() __syncthreads()
#define WARP_SYNC() __syncwarp()

namespace tessera {

template <int kWords>
struct alignas(kWords * 4) Words {
  uint32_t w[kWords];
};

// One access of 4 * kWords bytes, to which `p` is aligned.
template <int kWords>
DEVICE Words<kWords> LoadWords(const void* p) {
  return *static_cast<const Words<kWords>*>(p);
}
template <int kWords>
DEVICE void StoreWords(void* p, const Words<kWords>& words) {
  *static_cast<Words<kWords>*>(p) = words;
}

DEVICE float FloatFromBits(uint32_t bits) { return __uint_as_float(bits); }
DEVICE uint32_t BitsFromFloat(float value) { return __float_as_uint(value); }
DEVICE float Bf16ToFloat(uint32_t bits) { return __uint_as_float(bits << 16); }
DEVICE uint32_t FloatToBf16(float value) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
// Two bf16 in one word, rounded to nearest even.
DEVICE uint32_t PackBf16(float low, float high) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

// The calling thread's place in its warp.
DEVICE int Lane() {
  int lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

// `value` of another lane; where ShuffleUp and ShuffleDown would leave the warp, of the lane
// itself.
template <typename T>
DEVICE T Shuffle(T value, int source_lane) {
  return __shfl_sync(0xFFFFFFFFu, value, source_lane);
}
template <typename T>
DEVICE T ShuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xFFFFFFFFu, value, mask);
}
template <typename T>
DEVICE T ShuffleDown(T value, int delta) {
  return __shfl_down_sync(0xFFFFFFFFu, value, delta);
}
template <typename T>
DEVICE T ShuffleUp(T value, int delta) {
  return __shfl_up_sync(0xFFFFFFFFu, value, delta);
}
// Bit l is lane l's predicate.
DEVICE uint32_t Ballot(bool predicate) { return __ballot_sync(0xFFFFFFFFu, predicate); }

DEVICE uint32_t SharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 1, 2 or 4 matrices of 8x8 16-bit elements from shared memory. Lane 8m + i gives the address of
// row i (16 bytes, aligned) of matrix m; register m of lane l gets elements 2 (l % 4) and the next
// of row l / 4 of matrix m; transposed, of column l / 4.
template <int kMatrices>
DEVICE void LoadMatrix(uint32_t (&r)[kMatrices], const void* row) {
  static_assert(kMatrices == 2 || kMatrices == 4);
  if constexpr (kMatrices == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(SharedAddress(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(SharedAddress(row))
                 : "memory");
  }
}
template <int kMatrices>
DEVICE void LoadMatrixTransposed(uint32_t (&r)[kMatrices], const void* row) {
  static_assert(kMatrices == 2 || kMatrices == 4);
  if constexpr (kMatrices == 4) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(SharedAddress(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(SharedAddress(row))
                 : "memory");
  }
}

// d[16x8] += a[16x16] b[16x8]: bf16 products, f32 sums. With g = lane / 4 and t = lane % 4, the
// lane holds of a the pairs (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), of b rows 2t and 2t
// + 8 of column g, and of d (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
DEVICE void Mma16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Copies 16 aligned bytes to shared memory, or zeros unless `valid`, while the thread goes on.
// Copies up to CopyAsyncCommit() form a group; CopyAsyncWait<n>() returns when all but the n newest
// groups of this thread have arrived, for other threads after a barrier.
DEVICE void CopyAsync16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
               "l"(global), "r"(valid ? 16 : 0)
               : "memory");
}
DEVICE void CopyAsyncCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kNewest>
DEVICE void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
}

// Returns the value before.
DEVICE uint32_t AtomicAdd(uint32_t* address, uint32_t value) { return atomicAdd(address, value); }

}  // namespace tessera

#endif  // TESSERA_CORE_CUDA_DEVICE_PTX_H_
