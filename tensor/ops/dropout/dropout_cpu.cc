#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/dropout/dropout_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>

#include "core/parallel.h"
#include "tensor/ops/dropout/dropout.h"
#include "tensor/ops/float_types.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

using WordTag = hn::RebindToUnsigned<FloatTag>;
using WordVec = hn::Vec<WordTag>;

// The two halves of the 64-bit product of each lane with `factor`.
HWY_INLINE void MulWide(WordTag du, WordVec v, WordVec factor, WordVec& high, WordVec& low) {
  const hn::RepartitionToWide<WordTag> du64;
  const auto even = hn::MulEven(v, factor);
  const auto odd = hn::MulEven(hn::BitCast(du, hn::ShiftRight<32>(hn::BitCast(du64, v))), factor);
  high = hn::OddEven(hn::BitCast(du, odd), hn::BitCast(du, hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(du, hn::ShiftLeft<32>(odd)), hn::BitCast(du, even));
}

// Words 4 * block, ... of the stream: one block of Philox4x32-10 (see core/random.h) per lane.
HWY_INLINE void RandomWords(const DropoutArgs& args, uint32_t block, uint32_t* HWY_RESTRICT words) {
  const WordTag du;
  WordVec c0 = hn::Iota(du, block), c1 = hn::Zero(du);
  WordVec c2 = hn::Set(du, args.nonce[0]), c3 = hn::Set(du, args.nonce[1]);
  const WordVec factor0 = hn::Set(du, 0xD2511F53u), factor1 = hn::Set(du, 0xCD9E8D57u);
  uint32_t k0 = args.key[0], k1 = args.key[1];
  for (int round = 0; round < 10; ++round) {
    WordVec high0, low0, high1, low1;
    MulWide(du, c0, factor0, high0, low0);
    MulWide(du, c2, factor1, high1, low1);
    c0 = hn::Xor(hn::Xor(high1, c1), hn::Set(du, k0));
    c2 = hn::Xor(hn::Xor(high0, c3), hn::Set(du, k1));
    c1 = low1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  hn::StoreInterleaved4(c0, c1, c2, c3, du, words);
}

// Elements [begin, end), where begin is a multiple of 4 and of the lanes.
void DropRange(const DropoutArgs& args, int64_t begin, int64_t end) {
  WithFloatType(args.dtype, [&](auto type) {
    using T = decltype(type);
    const FloatTag df;
    const WordTag du;
    const int64_t step = 4 * static_cast<int64_t>(hn::Lanes(df));
    HWY_ALIGN uint32_t words[4 * hn::MaxLanes(FloatTag())];
    const WordVec threshold = hn::Set(du, args.threshold);
    const FloatVec scale = hn::Set(df, args.scale);
    for (int64_t i = begin; i < end; i += step) {
      RandomWords(args, static_cast<uint32_t>(i / 4), words);
      const T* x = static_cast<const T*>(args.x) + i;
      T* y = static_cast<T*>(args.y) + i;
      ForEachVector(df, std::min(step, end - i), [&](int64_t j, auto lanes) HWY_ATTR {
        const auto drop = hn::RebindMask(df, hn::Lt(hn::LoadU(du, words + j), threshold));
        const FloatVec kept = hn::IfThenZeroElse(drop, hn::Mul(LoadF32N(df, x + j, lanes), scale));
        StoreF32N(kept, df, y + j, lanes);
      });
    }
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(DropRange);

constexpr int64_t kGrain = int64_t{1} << 14;

void DropoutCpu(const DropoutArgs& args) {
  ParallelFor(args.n, kGrain, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(DropRange)(args, begin, end);
  });
}

REGISTER_KERNEL(dropout, Device::kCpu, DropoutCpu);

}  // namespace
}  // namespace tessera
#endif
