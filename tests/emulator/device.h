// The CPU's side of core/cuda/device.h: the same names as plain C++. What reads or writes memory
// for a kernel does it here, inline and in the thread that asked, so that sanitizers see it.
#ifndef TESSERA_TESTS_EMULATOR_DEVICE_H_
#define TESSERA_TESTS_EMULATOR_DEVICE_H_

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/dtype.h"
#include "tests/emulator/runtime.h"

#define KERNEL(max_threads) void
#define DEVICE inline
#define HOST_DEVICE inline
#define GRID_CONSTANT const
#define UNROLL

#define threadIdx (::tessera::emulator::current->thread)
#define blockIdx (::tessera::emulator::current->block)
#define blockDim (::tessera::emulator::current->block_dim)
#define gridDim (::tessera::emulator::current->grid_dim)

// The address of `name##_key` names the region, once per instantiation of the function around it.
#define SHARED_ARRAY(T, name, n)    \
  static const char name##_key = 0; \
  T(&name)[n] = *static_cast<T(*)[n]>(::tessera::emulator::SharedStatic(&name##_key, sizeof(T[n])))
#define SHARED_DYNAMIC(T, name) \
  T* const name = static_cast<T*>(::tessera::emulator::SharedDynamic())

#define BLOCK_SYNC() \
  ::tessera::emulator::BlockBarrier(::tessera::emulator::Site{__FILE__, __LINE__})
#define WARP_SYNC() ::tessera::emulator::WarpBarrier(::tessera::emulator::Site{__FILE__, __LINE__})

namespace tessera {

using emulator::Site;

template <int kWords>
struct alignas(kWords * 4) [[gnu::may_alias]] Words {
  uint32_t w[kWords];
};

DEVICE void CheckAligned(const void* p, uint64_t alignment, Site site) {
  if (reinterpret_cast<uintptr_t>(p) % alignment != 0) emulator::Fail("misaligned address", site);
}

template <int kWords>
Words<kWords> LoadWords(const void* p, Site site = Site::Here()) {
  CheckAligned(p, kWords * 4, site);
  return *static_cast<const Words<kWords>*>(p);
}
template <int kWords>
void StoreWords(void* p, const Words<kWords>& words, Site site = Site::Here()) {
  CheckAligned(p, kWords * 4, site);
  *static_cast<Words<kWords>*>(p) = words;
}

DEVICE float FloatFromBits(uint32_t bits) { return std::bit_cast<float>(bits); }
DEVICE uint32_t BitsFromFloat(float value) { return std::bit_cast<uint32_t>(value); }
DEVICE float Bf16ToFloat(uint32_t bits) { return std::bit_cast<float>(bits << 16); }
DEVICE uint32_t FloatToBf16(float value) { return BF16(value).bits; }
DEVICE uint32_t PackBf16(float low, float high) {
  return FloatToBf16(low) | FloatToBf16(high) << 16;
}
DEVICE float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

template <typename T>
T Shuffle(T value, int source_lane, Site site = Site::Here()) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 4 == 0);
  constexpr int kWords = sizeof(T) / 4;
  uint32_t in[kWords + 1], out[kWords];
  std::memcpy(in, &value, sizeof(T));
  in[kWords] = static_cast<uint32_t>(source_lane) % 32;
  emulator::WarpCollective(site, &emulator::CombineShuffle, kWords, in, out);
  std::memcpy(&value, out, sizeof(T));
  return value;
}

DEVICE int Lane() {
  const emulator::Position& p = *emulator::current;
  return static_cast<int>((p.thread.x + p.block_dim.x * (p.thread.y + p.block_dim.y * p.thread.z)) %
                          32);
}

template <typename T>
T ShuffleXor(T value, int mask, Site site = Site::Here()) {
  return Shuffle(value, Lane() ^ mask, site);
}
template <typename T>
T ShuffleDown(T value, int delta, Site site = Site::Here()) {
  return Shuffle(value, Lane() + delta < 32 ? Lane() + delta : Lane(), site);
}
template <typename T>
T ShuffleUp(T value, int delta, Site site = Site::Here()) {
  return Shuffle(value, Lane() >= delta ? Lane() - delta : Lane(), site);
}

DEVICE uint32_t Ballot(bool predicate, Site site = Site::Here()) {
  const uint32_t in = predicate ? 1 : 0;
  uint32_t out;
  emulator::WarpCollective(site, &emulator::CombineBallot, 1, &in, &out);
  return out;
}

template <int kMatrices>
void LoadMatrixBy(emulator::Combine combine, uint32_t (&r)[kMatrices], const void* row, Site site) {
  Words<4> words = {};
  if (Lane() < 8 * kMatrices) words = LoadWords<4>(row, site);
  emulator::WarpCollective(site, combine, kMatrices, words.w, r);
}
template <int kMatrices>
void LoadMatrix(uint32_t (&r)[kMatrices], const void* row, Site site = Site::Here()) {
  LoadMatrixBy(&emulator::CombineLoadMatrix, r, row, site);
}
template <int kMatrices>
void LoadMatrixTransposed(uint32_t (&r)[kMatrices], const void* row, Site site = Site::Here()) {
  LoadMatrixBy(&emulator::CombineLoadMatrixTransposed, r, row, site);
}

DEVICE void Mma16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     Site site = Site::Here()) {
  uint32_t in[10], out[4];
  std::memcpy(in, a, sizeof(a));
  std::memcpy(in + 4, b, sizeof(b));
  std::memcpy(in + 6, d, sizeof(d));
  emulator::WarpCollective(site, &emulator::CombineMma16816, 4, in, out);
  std::memcpy(d, out, sizeof(d));
}

// Until it is waited for, the destination holds NaN.
DEVICE void CopyAsync16(void* shared, const void* global, bool valid, Site site = Site::Here()) {
  constexpr uint32_t kNan = 0x7FFF7FFFu;
  CheckAligned(global, 16, site);
  StoreWords<4>(shared, {{kNan, kNan, kNan, kNan}}, site);
  emulator::PushCopy({shared, valid ? global : nullptr});
}
DEVICE void CopyAsyncCommit() { emulator::CommitCopies(); }
template <int kNewest>
void CopyAsyncWait() {
  for (emulator::AsyncCopy copy; emulator::PopCopy(kNewest, &copy);) {
    StoreWords<4>(copy.to, copy.from == nullptr ? Words<4>{} : LoadWords<4>(copy.from));
  }
}

// Returns the value before.
DEVICE uint32_t AtomicAdd(uint32_t* address, uint32_t value) {
  return __atomic_fetch_add(address, value, __ATOMIC_ACQ_REL);
}

}  // namespace tessera

#endif  // TESSERA_TESTS_EMULATOR_DEVICE_H_
