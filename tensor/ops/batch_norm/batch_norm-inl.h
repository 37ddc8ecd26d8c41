// What the kernels of batch norm share. Every pass takes a block of rows at once: a vector of
// channels of the statistics is loaded once for all of them, and their shares of sums meet in
// registers.
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_TENSOR_OPS_BATCH_NORM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_TENSOR_OPS_BATCH_NORM_INL_H_
#undef TESSERA_TENSOR_OPS_BATCH_NORM_INL_H_
#else
#define TESSERA_TENSOR_OPS_BATCH_NORM_INL_H_
#endif

#include <algorithm>
#include <type_traits>

#include "hwy/highway.h"
#include "tensor/activation-inl.h"
#include "tensor/ops/batch_norm/batch_norm_kernel.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

constexpr int64_t kBlock = 8;

// Calls fn(row, std::integral_constant rows) for blocks of rows and for the single ones left.
template <typename Fn>
HWY_INLINE void ForEachBlock(int64_t begin, int64_t end, const Fn& fn) {
  int64_t row = begin;
  for (; row + kBlock <= end; row += kBlock) fn(row, std::integral_constant<int64_t, kBlock>());
  for (; row < end; ++row) fn(row, std::integral_constant<int64_t, 1>());
}

// Calls fn(image, row, rows) likewise for blocks that each lie in one image of `pixels` rows.
template <typename Fn>
HWY_INLINE void ForEachBlockOfImages(int64_t pixels, int64_t begin, int64_t end, const Fn& fn) {
  while (begin < end) {
    const int64_t image = begin / pixels;
    const int64_t image_end = std::min(end, (image + 1) * pixels);
    ForEachBlock(begin, image_end, [&](int64_t row, auto rows) HWY_ATTR { fn(image, row, rows); });
    begin = image_end;
  }
}

// A vector of channels of the transform.
struct Channels {
  template <typename L>
  HWY_INLINE Channels(FloatTag df, const BatchNormAffine& affine, int64_t c, L lanes)
      : mean(LoadF32N(df, affine.mean + c, lanes)),
        rstd(LoadF32N(df, affine.rstd + c, lanes)),
        gamma(LoadF32N(df, affine.gamma + c, lanes)),
        beta(LoadF32N(df, affine.beta + c, lanes)) {}
  HWY_INLINE FloatVec XHat(FloatVec x) const { return hn::Mul(hn::Sub(x, mean), rstd); }
  HWY_INLINE FloatVec Z(FloatVec x_hat) const { return hn::MulAdd(x_hat, gamma, beta); }

  FloatVec mean, rstd, gamma, beta;
};

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_TENSOR_OPS_BATCH_NORM_INL_H_
