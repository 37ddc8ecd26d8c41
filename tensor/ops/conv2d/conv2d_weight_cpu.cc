// The weight gradient of a convolution as a product: dweight = dy^T patches, where row p of
// `patches` holds what pixel p of the output was computed from. Patches are gathered a few thousand
// at a time, so that they are still in the cache when the product reads them. oneDNN's own
// primitive cuts its sums by the number of threads.
#include <algorithm>
#include <cstring>

#include "core/parallel.h"
#include "tensor/ops/conv2d/conv2d.h"
#include "tensor/ops/matmul/matmul.h"

namespace tessera {
namespace {

constexpr int64_t kPatchBytes = int64_t{4} << 20;
constexpr int64_t kGrain = 64;

// The input pixels below one row of the kernel at one pixel of the output: the first and the past
// the last column of the kernel that lie inside the image.
struct KernelColumns {
  int64_t begin, end;
};

KernelColumns ColumnsInside(const Conv2dArgs& a, int64_t left) {
  return {std::clamp<int64_t>(-left, 0, a.kernel_width),
          std::clamp<int64_t>(a.in_width - left, 0, a.kernel_width)};
}

// to [kernel_height, kernel_width, in_channels]: the patch of output pixel `pixel`, zero outside
// the image.
void GatherPatch(const Conv2dArgs& a, int64_t pixel, char* to) {
  const int64_t pixel_bytes = a.in_channels * SizeOf(a.in_dtype);
  const int64_t row_bytes = a.kernel_width * pixel_bytes;
  const int64_t image = pixel / (a.out_height * a.out_width);
  const int64_t top = pixel / a.out_width % a.out_height * a.geometry.stride - a.geometry.pad_top;
  const int64_t left = pixel % a.out_width * a.geometry.stride - a.geometry.pad_left;
  const auto [begin, end] = ColumnsInside(a, left);
  for (int64_t kh = 0; kh < a.kernel_height; ++kh, to += row_bytes) {
    const int64_t h = top + kh;
    if (h < 0 || h >= a.in_height || begin >= end) {
      std::memset(to, 0, row_bytes);
      continue;
    }
    const char* from = static_cast<const char*>(a.x) +
                       ((image * a.in_height + h) * a.in_width + left) * pixel_bytes;
    std::memset(to, 0, begin * pixel_bytes);
    std::memcpy(to + begin * pixel_bytes, from + begin * pixel_bytes, (end - begin) * pixel_bytes);
    std::memset(to + end * pixel_bytes, 0, (a.kernel_width - end) * pixel_bytes);
  }
}

// dweight [O, I, kh, kw] = or += sums [O, kh, kw, I].
void StoreWeights(const Conv2dArgs& a, const float* sums) {
  const int64_t taps = a.kernel_height * a.kernel_width, channels = a.in_channels;
  ParallelFor(a.out_channels, 16, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) {
      const float* from = sums + o * taps * channels;
      float* to = a.dweight + o * taps * channels;
      for (int64_t i = 0; i < channels; ++i) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          const float sum = from[tap * channels + i];
          to[i * taps + tap] = a.accumulate ? to[i * taps + tap] + sum : sum;
        }
      }
    }
  });
}

void Conv2dBackwardWeightCpu(const Conv2dArgs& a) {
  CHECK(a.in_dtype == a.out_dtype)
      << "conv2d, weight gradient: x " << Name(a.in_dtype) << ", dy " << Name(a.out_dtype);
  const int64_t pixels = a.batch * a.out_height * a.out_width;
  const int64_t patch = a.kernel_height * a.kernel_width * a.in_channels;
  const int64_t element = SizeOf(a.in_dtype);
  const int64_t rows = std::clamp<int64_t>(kPatchBytes / (patch * element), kGrain, pixels);
  const Tensor patches = Tensor::Empty({rows, patch}, a.in_dtype);
  const Tensor sums = Tensor::Empty({a.out_channels, patch}, DType::kF32);
  for (int64_t first = 0; first < pixels; first += rows) {
    const int64_t count = std::min(rows, pixels - first);
    ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        GatherPatch(a, first + i, static_cast<char*>(patches.raw()) + i * patch * element);
      }
    });
    matmul(Device::kCpu,
           MatMulArgs{.a = static_cast<const char*>(a.dy) + first * a.out_channels * element,
                      .b = patches.raw(),
                      .c = sums.raw(),
                      .m = a.out_channels,
                      .n = patch,
                      .k = count,
                      .transpose_a = true,
                      .accumulate = first > 0,
                      .in_dtype = a.in_dtype,
                      .out_dtype = DType::kF32});
  }
  StoreWeights(a, sums.data<float>());
}

REGISTER_KERNEL(conv2d_backward_weight, Device::kCpu, Conv2dBackwardWeightCpu);

}  // namespace
}  // namespace tessera
