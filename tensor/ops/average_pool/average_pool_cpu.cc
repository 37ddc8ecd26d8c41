#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tensor/ops/average_pool/average_pool_cpu.cc"
#include "tensor/simd_targets.h"

#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "core/parallel.h"
#include "tensor/ops/average_pool/average_pool.h"
#include "tensor/ops/float_types.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {
namespace {

// One row of y, numbered over all images.
void PoolRow(const AveragePoolArgs& args, int64_t row) {
  const FloatTag df;
  const int64_t out_height = (args.height + 1) / 2, out_width = (args.width + 1) / 2;
  const int64_t channels = args.channels, image = row / out_height, top = row % out_height * 2;
  const FloatVec quarter = hn::Set(df, 0.25f);
  WithFloatTypes(args.x_dtype, args.y_dtype, [&](auto x_type, auto y_type) {
    const auto* x = static_cast<const decltype(x_type)*>(args.x);
    auto* y = static_cast<decltype(y_type)*>(args.y) + row * out_width * channels;
    for (int64_t column = 0; column < out_width; ++column) {
      const bool has_below = top + 1 < args.height, has_right = 2 * column + 1 < args.width;
      const auto* first = x + ((image * args.height + top) * args.width + 2 * column) * channels;
      const auto* below = first + args.width * channels;
      ForEachVector(df, channels, [=](int64_t c, auto lanes) HWY_ATTR {
        FloatVec sum = LoadF32N(df, first + c, lanes);
        if (has_right) sum = hn::Add(sum, LoadF32N(df, first + channels + c, lanes));
        if (has_below) sum = hn::Add(sum, LoadF32N(df, below + c, lanes));
        if (has_right && has_below) sum = hn::Add(sum, LoadF32N(df, below + channels + c, lanes));
        StoreF32N(hn::Mul(sum, quarter), df, y + column * channels + c, lanes);
      });
    }
  });
}

// One row of dx, numbered over all images.
void SpreadRow(const AveragePoolBackwardArgs& args, int64_t row) {
  const FloatTag df;
  const int64_t out_height = (args.height + 1) / 2, out_width = (args.width + 1) / 2;
  const int64_t channels = args.channels;
  const int64_t out_row = row / args.height * out_height + row % args.height / 2;
  const FloatVec quarter = hn::Set(df, 0.25f);
  WithFloatTypes(args.dy_dtype, args.dx_dtype, [&](auto dy_type, auto dx_type) {
    const auto* dy =
        static_cast<const decltype(dy_type)*>(args.dy) + out_row * out_width * channels;
    auto* dx = static_cast<decltype(dx_type)*>(args.dx) + row * args.width * channels;
    for (int64_t column = 0; column < args.width; ++column) {
      const auto* from = dy + column / 2 * channels;
      auto* to = dx + column * channels;
      ForEachVector(df, channels, [=, &args](int64_t c, auto lanes) HWY_ATTR {
        const FloatVec before = args.accumulate ? LoadF32N(df, to + c, lanes) : hn::Zero(df);
        StoreF32N(hn::MulAdd(LoadF32N(df, from + c, lanes), quarter, before), df, to + c, lanes);
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

HWY_EXPORT(PoolRow);
HWY_EXPORT(SpreadRow);

void AveragePoolCpu(const AveragePoolArgs& args) {
  ParallelFor(args.batch * ((args.height + 1) / 2), 1, [&](int64_t row, int64_t) {
    HWY_DYNAMIC_DISPATCH(PoolRow)(args, row);
  });
}

void AveragePoolBackwardCpu(const AveragePoolBackwardArgs& args) {
  ParallelFor(args.batch * args.height, 1, [&](int64_t row, int64_t) {
    HWY_DYNAMIC_DISPATCH(SpreadRow)(args, row);
  });
}

REGISTER_KERNEL(average_pool, Device::kCpu, AveragePoolCpu);
REGISTER_KERNEL(average_pool_backward, Device::kCpu, AveragePoolBackwardCpu);

}  // namespace
}  // namespace tessera
#endif
