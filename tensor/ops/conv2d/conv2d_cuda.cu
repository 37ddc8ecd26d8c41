// Dense convolution as products with patches: row p of the patches holds what pixel p of the output
// is computed from, [in_channels, kernel_height, kernel_width] like the weights. Some images at a
// time, so that patches take a bounded part of the memory.
#include <algorithm>

#include "core/cuda/elementwise.h"
#include "tensor/ops/cast/cast_kernel.h"
#include "tensor/ops/conv2d/conv2d_kernel.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/matmul/matmul_kernel.h"

namespace tessera {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kPatchElements = int64_t{1} << 24;

DEVICE int Taps(const Conv2dArgs& args) {
  return static_cast<int>(args.kernel_height * args.kernel_width);
}

// One element of the patches per thread; x and patches start at the first image of the part.
template <typename T>
KERNEL(kThreads)
GatherPatches(GRID_CONSTANT Conv2dArgs args, const T* x, int64_t n, T* patches) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n) return;
  const int depth = static_cast<int>(args.in_channels) * Taps(args);
  const int k = static_cast<int>(i % depth), tap = k % Taps(args);
  const int64_t pixel = i / depth;
  const int64_t h = pixel / args.out_width % args.out_height * args.geometry.stride -
                    args.geometry.pad_top + tap / static_cast<int>(args.kernel_width);
  const int64_t w = pixel % args.out_width * args.geometry.stride - args.geometry.pad_left +
                    tap % static_cast<int>(args.kernel_width);
  const int64_t image = pixel / (args.out_height * args.out_width);
  float value = 0;
  if (h >= 0 && h < args.in_height && w >= 0 && w < args.in_width) {
    value = LoadFloat(x + ((image * args.in_height + h) * args.in_width + w) * args.in_channels +
                      k / Taps(args));
  }
  StoreFloat(value, patches + i);
}

// The gradient of one element of x per thread: the sum over the patches that hold it.
template <typename T>
KERNEL(kThreads)
SumPatches(GRID_CONSTANT Conv2dArgs args, const float* dpatches, int64_t n, T* dx) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= n) return;
  const int64_t stride = args.geometry.stride, depth = args.in_channels * Taps(args);
  const int64_t c = i % args.in_channels, pixel = i / args.in_channels;
  const int64_t bottom = pixel / args.in_width % args.in_height + args.geometry.pad_top;
  const int64_t right = pixel % args.in_width + args.geometry.pad_left;
  const int64_t image = pixel / (args.in_height * args.in_width);
  float sum = 0;
  for (int64_t kh = bottom % stride; kh < args.kernel_height; kh += stride) {
    const int64_t oh = (bottom - kh) / stride;
    if (kh > bottom || oh >= args.out_height) continue;
    for (int64_t kw = right % stride; kw < args.kernel_width; kw += stride) {
      const int64_t ow = (right - kw) / stride;
      if (kw > right || ow >= args.out_width) continue;
      const int64_t patch = (image * args.out_height + oh) * args.out_width + ow;
      sum += dpatches[patch * depth + (c * args.kernel_height + kh) * args.kernel_width + kw];
    }
  }
  StoreFloat(sum, dx + i);
}

// Some images of the batch.
struct Part {
  int64_t begin, images;
};

class Convolution {
 public:
  explicit Convolution(const Conv2dArgs& args)
      : args_(args),
        depth_(args.in_channels * args.kernel_height * args.kernel_width),
        pixels_(args.out_height * args.out_width),
        images_per_part_(std::clamp<int64_t>(kPatchElements / std::max<int64_t>(pixels_ * depth_, 1),
                                             1, args.batch)) {}

  int64_t depth() const { return depth_; }
  int64_t rows(const Part& part) const { return part.images * pixels_; }
  int64_t max_patch_elements() const { return images_per_part_ * pixels_ * depth_; }

  template <typename Fn>
  void ForEachPart(const Fn& fn) const {
    for (int64_t begin = 0; begin < args_.batch; begin += images_per_part_) {
      fn(Part{begin, std::min(images_per_part_, args_.batch - begin)});
    }
  }

  // Address of the part's first image in y or dy, of out_dtype.
  template <typename P>
  P* Output(P* y, const Part& part) const {
    using Byte = std::conditional_t<std::is_const_v<P>, const char, char>;
    return static_cast<Byte*>(y) +
           part.begin * pixels_ * args_.out_channels * SizeOf(args_.out_dtype);
  }

  void Gather(const Part& part, void* patches) const {
    WithFloatType(args_.in_dtype, [&](auto type) {
      using T = decltype(type);
      const int64_t n = rows(part) * depth_;
      Launch<GatherPatches<T>>({.x = CeilDiv(n, kThreads)}, {.x = kThreads}, 0, CurrentStream(),
                               args_, static_cast<const T*>(args_.x) + FirstInput(part), n,
                               static_cast<T*>(patches));
    });
  }

  void SumTo(const Part& part, const float* dpatches) const {
    WithFloatType(args_.in_dtype, [&](auto type) {
      using T = decltype(type);
      const int64_t n = part.images * ImageElements();
      Launch<SumPatches<T>>({.x = CeilDiv(n, kThreads)}, {.x = kThreads}, 0, CurrentStream(), args_,
                            dpatches, n, static_cast<T*>(args_.dx) + FirstInput(part));
    });
  }

 private:
  int64_t ImageElements() const { return args_.in_height * args_.in_width * args_.in_channels; }
  int64_t FirstInput(const Part& part) const { return part.begin * ImageElements(); }

  Conv2dArgs args_;
  int64_t depth_;   // of a patch
  int64_t pixels_;  // of an output image
  int64_t images_per_part_;
};

// The weights as an operand of products with `dtype`.
class WeightsAs {
 public:
  WeightsAs(const Conv2dArgs& args, int64_t n, DType dtype)
      : f32_(args.weight), bf16_(dtype == DType::kBF16 ? n : 0), dtype_(dtype) {
    if (dtype == DType::kF32) return;
    cast(Device::kCuda, CastArgs{.x = f32_,
                                 .y = bf16_.data(),
                                 .n = n,
                                 .x_dtype = DType::kF32,
                                 .y_dtype = DType::kBF16});
  }
  const void* data() const {
    return dtype_ == DType::kF32 ? static_cast<const void*>(f32_) : bf16_.data();
  }

 private:
  const float* f32_;
  Workspace<BF16> bf16_;
  DType dtype_;
};

void ForwardCuda(const Conv2dArgs& args) {
  const Convolution conv(args);
  const WeightsAs weights(args, args.out_channels * conv.depth(), args.in_dtype);
  const Workspace<char> patches(conv.max_patch_elements() * SizeOf(args.in_dtype));
  conv.ForEachPart([&](const Part& part) {
    conv.Gather(part, patches.data());
    matmul(Device::kCuda, MatMulArgs{.a = patches.data(),
                                     .b = weights.data(),
                                     .bias = args.bias,
                                     .c = conv.Output(args.y, part),
                                     .m = conv.rows(part),
                                     .n = args.out_channels,
                                     .k = conv.depth(),
                                     .transpose_a = false,
                                     .transpose_b = true,
                                     .accumulate = false,
                                     .in_dtype = args.in_dtype,
                                     .out_dtype = args.out_dtype});
  });
}

void BackwardInputCuda(const Conv2dArgs& args) {
  const Convolution conv(args);
  const WeightsAs weights(args, args.out_channels * conv.depth(), args.out_dtype);
  const Workspace<float> dpatches(conv.max_patch_elements());
  conv.ForEachPart([&](const Part& part) {
    matmul(Device::kCuda, MatMulArgs{.a = conv.Output(args.dy, part),
                                     .b = weights.data(),
                                     .bias = nullptr,
                                     .c = dpatches.data(),
                                     .m = conv.rows(part),
                                     .n = conv.depth(),
                                     .k = args.out_channels,
                                     .transpose_a = false,
                                     .transpose_b = false,
                                     .accumulate = false,
                                     .in_dtype = args.out_dtype,
                                     .out_dtype = DType::kF32});
    conv.SumTo(part, dpatches.data());
  });
}

void BackwardWeightCuda(const Conv2dArgs& args) {
  const Convolution conv(args);
  const Workspace<char> patches(conv.max_patch_elements() * SizeOf(args.in_dtype));
  conv.ForEachPart([&](const Part& part) {
    conv.Gather(part, patches.data());
    matmul(Device::kCuda, MatMulArgs{.a = conv.Output(args.dy, part),
                                     .b = patches.data(),
                                     .bias = nullptr,
                                     .c = args.dweight,
                                     .m = args.out_channels,
                                     .n = conv.depth(),
                                     .k = conv.rows(part),
                                     .transpose_a = true,
                                     .transpose_b = false,
                                     .accumulate = args.accumulate || part.begin > 0,
                                     .in_dtype = args.in_dtype,
                                     .out_dtype = DType::kF32});
  });
}

REGISTER_CUDA_KERNEL(conv2d_forward, ForwardCuda);
REGISTER_CUDA_KERNEL(conv2d_backward_input, BackwardInputCuda);
REGISTER_CUDA_KERNEL(conv2d_backward_weight, BackwardWeightCuda);

}  // namespace
}  // namespace tessera
