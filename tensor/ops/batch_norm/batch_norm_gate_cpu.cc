// The part of batch norm on the CPU that squeeze-excite needs: sums per image.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/batch_norm/batch_norm_gate_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include <algorithm>

#include "core/parallel.h"
#include "tensor/ops/batch_norm/batch_norm-inl.h"
#include "tensor/ops/batch_norm/batch_norm.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/partial_sums.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

// sums[0, n) += v at the vector of channels that starts at `sums`.
template <typename L>
HWY_INLINE void AddTo(FloatTag df, FloatVec v, float* sums, L lanes) {
  StoreF32N(hn::Add(v, LoadF32N(df, sums, lanes)), df, sums, lanes);
}

// Rows [begin, end), all of one image.
void PoolRows(const BatchNormPoolArgs& args, int64_t begin, int64_t end, float* sums) {
  const FloatTag df;
  const int64_t channels = args.affine.channels;
  WithBatchNormActivation(args.affine.activation, [&](auto activation) {
    WithFloatType(args.x_dtype, [&](auto type) {
      using X = decltype(type);
      ForEachBlock(begin, end, [&](int64_t row, auto rows) HWY_ATTR {
        const X* HWY_RESTRICT x = static_cast<const X*>(args.x) + row * channels;
        ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
          const Channels of(df, args.affine, c, lanes);
          FloatVec sum = hn::Zero(df);
          for (int64_t r = 0; r < decltype(rows)::value; ++r) {
            const FloatVec z = of.Z(of.XHat(LoadF32N(df, x + r * channels + c, lanes)));
            sum = hn::Add(sum, Activate<decltype(activation)::value>(df, z));
          }
          AddTo(df, sum, sums + c, lanes);
        });
      });
    });
  });
}

template <Activation kActivation, typename DY, typename X>
void SumGate(const BatchNormGateSumsArgs& args, int64_t begin, int64_t end, float* sums) {
  const FloatTag df;
  const int64_t channels = args.affine.channels;
  ForEachBlock(begin, end, [&](int64_t row, auto rows) HWY_ATTR {
    const X* HWY_RESTRICT x = static_cast<const X*>(args.x) + row * channels;
    const DY* HWY_RESTRICT dy = static_cast<const DY*>(args.dy) + row * channels;
    ForEachVector(df, channels, [&](int64_t c, auto lanes) HWY_ATTR {
      const Channels of(df, args.affine, c, lanes);
      FloatVec dy_a = hn::Zero(df), dy_da = dy_a, da = dy_a, dy_da_x = dy_a, da_x = dy_a;
      for (int64_t r = 0; r < decltype(rows)::value; ++r) {
        const int64_t i = r * channels + c;
        const FloatVec d = LoadF32N(df, dy + i, lanes);
        const FloatVec x_hat = of.XHat(LoadF32N(df, x + i, lanes));
        const FloatVec z = of.Z(x_hat);
        const FloatVec slope = ActivationDerivative<kActivation>(df, z);
        const FloatVec slope_x = hn::Mul(slope, x_hat);
        dy_a = hn::MulAdd(d, Activate<kActivation>(df, z), dy_a);
        dy_da = hn::MulAdd(d, slope, dy_da);
        da = hn::Add(da, slope);
        dy_da_x = hn::MulAdd(d, slope_x, dy_da_x);
        da_x = hn::Add(da_x, slope_x);
      }
      AddTo(df, dy_a, sums + c, lanes);
      AddTo(df, dy_da, sums + channels + c, lanes);
      AddTo(df, da, sums + 2 * channels + c, lanes);
      AddTo(df, dy_da_x, sums + 3 * channels + c, lanes);
      AddTo(df, da_x, sums + 4 * channels + c, lanes);
    });
  });
}

void SumGateRows(const BatchNormGateSumsArgs& args, int64_t begin, int64_t end, float* sums) {
  WithBatchNormActivation(args.affine.activation, [&](auto activation) {
    WithFloatTypes(args.dy_dtype, args.x_dtype, [&](auto dy, auto x) {
      SumGate<decltype(activation)::value, decltype(dy), decltype(x)>(args, begin, end, sums);
    });
  });
}

}  // namespace
}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(PoolRows);
HWY_EXPORT(SumGateRows);

// `width` sums per image over its rows: each image is cut into the same parts by size alone.
class ImageSums {
 public:
  ImageSums(const BatchNormAffine& affine, int64_t pixels, int64_t width)
      : pixels_(pixels),
        images_(affine.rows / pixels),
        part_rows_(std::min(pixels, RowsPerChunk(affine.rows, affine.channels))),
        parts_(NumChunks(pixels, part_rows_)),
        sums_(images_ * parts_, width) {}

  // Calls fn(begin, end, sums) in parallel for the rows of each part.
  template <typename Fn>
  void ForEachPart(const Fn& fn) const {
    ParallelFor(images_ * parts_, 1, [&](int64_t k, int64_t) {
      const int64_t first = k / parts_ * pixels_, begin = k % parts_ * part_rows_;
      fn(first + begin, first + std::min(pixels_, begin + part_rows_), sums_.chunk(k));
    });
  }
  int64_t images() const { return images_; }
  // Adds up elements [offset, offset + n) of an image's sums.
  void AddUp(int64_t image, int64_t offset, int64_t n, float* out) const {
    std::fill_n(out, n, 0.0f);
    for (int64_t k = image * parts_; k < (image + 1) * parts_; ++k) {
      const float* part = sums_.chunk(k) + offset;
      for (int64_t j = 0; j < n; ++j) out[j] += part[j];
    }
  }

 private:
  int64_t pixels_, images_, part_rows_, parts_;
  PartialSums sums_;
};

void BatchNormPoolCpu(const BatchNormPoolArgs& args) {
  const int64_t channels = args.affine.channels;
  const ImageSums sums(args.affine, args.pixels, channels);
  sums.ForEachPart([&](int64_t begin, int64_t end, float* part) {
    HWY_DYNAMIC_DISPATCH(PoolRows)(args, begin, end, part);
  });
  const float inverse = 1.0f / static_cast<float>(args.pixels);
  for (int64_t image = 0; image < sums.images(); ++image) {
    float* pooled = args.pooled + image * channels;
    sums.AddUp(image, 0, channels, pooled);
    for (int64_t c = 0; c < channels; ++c) pooled[c] *= inverse;
  }
}

void BatchNormGateSumsCpu(const BatchNormGateSumsArgs& args) {
  const int64_t channels = args.affine.channels;
  const ImageSums sums(args.affine, args.pixels, kBatchNormGateSums * channels);
  sums.ForEachPart([&](int64_t begin, int64_t end, float* part) {
    HWY_DYNAMIC_DISPATCH(SumGateRows)(args, begin, end, part);
  });
  for (int64_t s = 0; s < kBatchNormGateSums; ++s) {
    for (int64_t image = 0; image < sums.images(); ++image) {
      sums.AddUp(image, s * channels, channels, args.sums + (s * sums.images() + image) * channels);
    }
  }
}

void BatchNormGateCombineCpu(const BatchNormGateCombineArgs& args) {
  const int64_t channels = args.channels, stride = args.images * channels;
  std::fill_n(args.sums, 2 * channels, 0.0f);
  for (int64_t i = 0; i < stride; ++i) {
    const int64_t c = i % channels;
    const float* of = args.gate_sums + i;
    const float offset = args.dmeans[i] / static_cast<float>(args.pixels);
    args.sums[c] += args.gate[i] * of[stride] + offset * of[2 * stride];
    args.sums[channels + c] += args.gate[i] * of[3 * stride] + offset * of[4 * stride];
  }
}

REGISTER_KERNEL(batch_norm_pool, Device::kCpu, BatchNormPoolCpu);
REGISTER_KERNEL(batch_norm_gate_sums, Device::kCpu, BatchNormGateSumsCpu);
REGISTER_KERNEL(batch_norm_gate_combine, Device::kCpu, BatchNormGateCombineCpu);

}  // namespace
}  // namespace tessera
#endif
