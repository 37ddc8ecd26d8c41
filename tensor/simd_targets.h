// Instruction sets that the CPU kernels are compiled for: SSE4 (every x86-64 since 2010), AVX2 and
// AVX-512 (Highway's AVX3); the best one is chosen at run time. Include before any Highway header.
#ifndef TESSERA_TENSOR_SIMD_TARGETS_H_
#define TESSERA_TENSOR_SIMD_TARGETS_H_

// Raises the baseline from scalar code, so that the slower sets below SSE4 are not compiled at all.
#define HWY_WANT_SSE4 1

namespace tessera {

// Some machines with AVX-512 round f32 to bf16 in one instruction.
inline const bool kCpuHasAvx512Bf16 = __builtin_cpu_supports("avx512bf16");

}  // namespace tessera

#endif  // TESSERA_TENSOR_SIMD_TARGETS_H_
