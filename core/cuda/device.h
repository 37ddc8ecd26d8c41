// What a kernel may use of the device. A kernel is written against these names alone, so that its
// file compiles for GPUs and, in tests, as plain C++ that runs on the CPU (tests/emulator).
//
//   KERNEL(256) Scale(float* x, int64_t n) {   // at most 256 threads per block
//     SHARED_ARRAY(float, sums, 8);            // not __shared__, which is a local array in plain
//     C++ BLOCK_SYNC();  WARP_SYNC();              // not __syncthreads()
//   }
//   DEVICE float Square(float x) { return x * x; }
//
// threadIdx, blockIdx, blockDim and gridDim are CUDA's, as are sqrtf, expf, erff and their like.
// Operations of a warp take all of its 32 lanes, so blocks are whole warps. Kernels compute in
// float: bf16 is a type of memory.
#ifndef TESSERA_CORE_CUDA_DEVICE_H_
#define TESSERA_CORE_CUDA_DEVICE_H_

#include "core/dtype.h"
#ifdef TESSERA_EMULATOR
#include "tests/emulator/device.h"
#else
#include "core/cuda/device_ptx.h"
#endif

namespace tessera {

inline constexpr int kWarpSize = 32;

DEVICE int WarpIndex() {
  return static_cast<int>(threadIdx.x) / kWarpSize;
}  // in blocks of one axis

// ---- kCount elements of f32 or bf16 as floats, in loads of up to 16 bytes, to which `p` is
// aligned.

template <int kCount>
DEVICE void LoadFloats(const float* p, float (&v)[kCount]) {
  if constexpr (kCount % 4 == 0) {
    UNROLL for (int i = 0; i < kCount; i += 4) {
      const Words<4> words = LoadWords<4>(p + i);
      UNROLL for (int j = 0; j < 4; ++j) v[i + j] = FloatFromBits(words.w[j]);
    }
  } else {
    UNROLL for (int i = 0; i < kCount; ++i) v[i] = p[i];
  }
}

template <int kWords>
DEVICE void UnpackBf16(const Words<kWords>& words, float* v) {
  UNROLL for (int j = 0; j < kWords; ++j) {
    v[2 * j] = Bf16ToFloat(words.w[j] & 0xFFFF);
    v[2 * j + 1] = FloatFromBits(words.w[j] & 0xFFFF0000u);
  }
}

template <int kCount>
DEVICE void LoadFloats(const BF16* p, float (&v)[kCount]) {
  if constexpr (kCount % 8 == 0) {
    UNROLL for (int i = 0; i < kCount; i += 8) UnpackBf16(LoadWords<4>(p + i), v + i);
  } else if constexpr (kCount == 4) {
    UnpackBf16(LoadWords<2>(p), v);
  } else {
    UNROLL for (int i = 0; i < kCount; ++i) v[i] = Bf16ToFloat(p[i].bits);
  }
}

template <int kCount>
DEVICE void StoreFloats(const float (&v)[kCount], float* p) {
  if constexpr (kCount % 4 == 0) {
    UNROLL for (int i = 0; i < kCount; i += 4) {
      StoreWords<4>(p + i, {{BitsFromFloat(v[i]), BitsFromFloat(v[i + 1]), BitsFromFloat(v[i + 2]),
                             BitsFromFloat(v[i + 3])}});
    }
  } else {
    UNROLL for (int i = 0; i < kCount; ++i) p[i] = v[i];
  }
}

template <int kCount>
DEVICE void StoreFloats(const float (&v)[kCount], BF16* p) {
  if constexpr (kCount % 8 == 0) {
    UNROLL for (int i = 0; i < kCount; i += 8) {
      StoreWords<4>(p + i, {{PackBf16(v[i], v[i + 1]), PackBf16(v[i + 2], v[i + 3]),
                             PackBf16(v[i + 4], v[i + 5]), PackBf16(v[i + 6], v[i + 7])}});
    }
  } else if constexpr (kCount == 4) {
    StoreWords<2>(p, {{PackBf16(v[0], v[1]), PackBf16(v[2], v[3])}});
  } else {
    UNROLL for (int i = 0; i < kCount; ++i) p[i].bits = static_cast<uint16_t>(FloatToBf16(v[i]));
  }
}

template <typename T>
DEVICE float LoadFloat(const T* p) {
  float v[1];
  LoadFloats(p, v);
  return v[0];
}
template <typename T>
DEVICE void StoreFloat(float value, T* p) {
  const float v[1] = {value};
  StoreFloats(v, p);
}

// ---- Reductions; every lane, or thread of the block, gets the result. The order is fixed.

template <typename T>
DEVICE T WarpSum(T v) {
  UNROLL for (int mask = kWarpSize / 2; mask > 0; mask /= 2) v += ShuffleXor(v, mask);
  return v;
}
DEVICE float WarpMax(float v) {
  UNROLL for (int mask = kWarpSize / 2; mask > 0; mask /= 2) v = fmaxf(v, ShuffleXor(v, mask));
  return v;
}

// Over a block of kThreads threads in one axis; all of them call it.
template <int kThreads, typename T>
DEVICE T BlockSum(T v) {
  SHARED_ARRAY(T, sums, kThreads / kWarpSize);
  v = WarpSum(v);
  BLOCK_SYNC();  // the sums of the call before have been read
  if (Lane() == 0) sums[WarpIndex()] = v;
  BLOCK_SYNC();
  v = sums[0];
  UNROLL for (int w = 1; w < kThreads / kWarpSize; ++w) v += sums[w];
  return v;
}
template <int kThreads>
DEVICE float BlockMax(float v) {
  SHARED_ARRAY(float, maxima, kThreads / kWarpSize);
  v = WarpMax(v);
  BLOCK_SYNC();
  if (Lane() == 0) maxima[WarpIndex()] = v;
  BLOCK_SYNC();
  v = maxima[0];
  UNROLL for (int w = 1; w < kThreads / kWarpSize; ++w) v = fmaxf(v, maxima[w]);
  return v;
}

}  // namespace tessera

#endif  // TESSERA_CORE_CUDA_DEVICE_H_
