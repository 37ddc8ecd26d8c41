// Kernels of batch norm: what runs on a device, on pointers and sizes. Formulas: batch_norm.h.
#ifndef TESSERA_TENSOR_OPS_BATCH_NORM_BATCH_NORM_KERNEL_H_
#define TESSERA_TENSOR_OPS_BATCH_NORM_BATCH_NORM_KERNEL_H_

#include <cstdint>

#include "core/dtype.h"
#include "core/kernel.h"
#include "tensor/activation.h"

namespace tessera {

struct BatchNormSumsArgs {
  const void* x;  // [rows, channels], f32 or bf16
  double* sums;   // [2, channels]
  int64_t rows;
  int64_t channels;
  DType x_dtype;

  KernelCost Cost() const {
    return {3.0 * static_cast<double>(rows * channels),
            static_cast<double>(rows * channels * SizeOf(x_dtype))};
  }
};
extern KernelSlot<void(const BatchNormSumsArgs&)> batch_norm_sums;

struct BatchNormStatisticsArgs {
  const double* sums;   // [2, channels], or null: the running statistics are used
  float* running_mean;  // [channels], moved towards the batch's unless momentum is 0; may be null
  float* running_var;   // with sums
  float* mean;          // [channels]
  float* rstd;          // [channels]
  int64_t count;        // of rows in the sums
  int64_t channels;
  double momentum;
  float eps;
};
extern KernelSlot<void(const BatchNormStatisticsArgs&)> batch_norm_statistics;

// The activations that the kernels are compiled with.
template <typename Fn>
bool WithBatchNormActivation(Activation activation, const Fn& fn) {
  return WithActivationOf<Activation::kNone, Activation::kGelu, Activation::kGeluTanh,
                          Activation::kSilu>(activation, fn);
}

// The normalisation of [rows, channels] by given statistics; all [channels].
struct BatchNormAffine {
  const float* mean;
  const float* rstd;
  const float* gamma;
  const float* beta;
  int64_t rows;
  int64_t channels;
  Activation activation;
};

// y is also scaled by a gate per image and channel; without one, all rows are one image.
struct BatchNormGateArgs {
  const float* gate;    // [images, channels], or null
  const float* dmeans;  // [images, channels], for gradients only: of the means of activation(z)
  int64_t pixels;       // rows of an image
};

struct BatchNormArgs {
  BatchNormAffine affine;
  BatchNormGateArgs gate;
  const void* x;
  void* y;
  DType x_dtype;  // f32 or bf16
  DType y_dtype;

  KernelCost Cost() const {
    return {0, static_cast<double>(affine.rows * affine.channels *
                                   (SizeOf(x_dtype) + SizeOf(y_dtype)))};
  }
};
extern KernelSlot<void(const BatchNormArgs&)> batch_norm;

// With z = x_hat gamma + beta and g = dy activation'(z): sums of g and of g x_hat over the rows.
struct BatchNormGradSumsArgs {
  BatchNormAffine affine;
  const void* dy;
  const void* x;
  float* sums;  // [2, channels]
  DType dy_dtype;
  DType x_dtype;

  KernelCost Cost() const {
    return {0, static_cast<double>(affine.rows * affine.channels *
                                   (SizeOf(x_dtype) + SizeOf(dy_dtype)))};
  }
};
extern KernelSlot<void(const BatchNormGradSumsArgs&)> batch_norm_grad_sums;

// dx = gamma rstd (g - (sum of g + x_hat sum of g x_hat) / count), with g = (dy gate + dmeans /
// pixels) activation'(z).
struct BatchNormGradInputArgs {
  BatchNormAffine affine;
  BatchNormGateArgs gate;
  const void* dy;
  const void* x;
  const float* sums;  // [2, channels], or null: the statistics are constants
  void* dx;           // of x's dtype
  int64_t count;      // of rows in the sums
  bool accumulate;
  DType dy_dtype;
  DType x_dtype;

  KernelCost Cost() const {
    return {0, static_cast<double>(affine.rows * affine.channels *
                                   ((accumulate ? 3 : 2) * SizeOf(x_dtype) + SizeOf(dy_dtype)))};
  }
};
extern KernelSlot<void(const BatchNormGradInputArgs&)> batch_norm_grad_input;

// pooled = mean of activation(z) over the pixels of an image.
struct BatchNormPoolArgs {
  BatchNormAffine affine;
  const void* x;
  float* pooled;  // [images, channels]
  int64_t pixels;
  DType x_dtype;

  KernelCost Cost() const {
    return {0, static_cast<double>(affine.rows * affine.channels * SizeOf(x_dtype))};
  }
};
extern KernelSlot<void(const BatchNormPoolArgs&)> batch_norm_pool;

// What the gradients of a gated norm are made of, in one pass: per image, sums over its pixels of
// dy a, dy a', a', dy a' x_hat and a' x_hat, where a = activation(z) and a' its derivative.
inline constexpr int64_t kBatchNormGateSums = 5;
struct BatchNormGateSumsArgs {
  BatchNormAffine affine;
  const void* dy;
  const void* x;
  float* sums;  // [5, images, channels]
  int64_t pixels;
  DType dy_dtype;
  DType x_dtype;

  KernelCost Cost() const {
    return {0, static_cast<double>(affine.rows * affine.channels *
                                   (SizeOf(x_dtype) + SizeOf(dy_dtype)))};
  }
};
extern KernelSlot<void(const BatchNormGateSumsArgs&)> batch_norm_gate_sums;

// Sums of g and g x_hat over all rows from those, given gate and dmeans.
struct BatchNormGateCombineArgs {
  const float* gate_sums;  // [5, images, channels]
  const float* gate;       // [images, channels]
  const float* dmeans;     // [images, channels]
  float* sums;             // [2, channels]
  int64_t images;
  int64_t pixels;
  int64_t channels;
};
extern KernelSlot<void(const BatchNormGateCombineArgs&)> batch_norm_gate_combine;

}  // namespace tessera

#endif  // TESSERA_TENSOR_OPS_BATCH_NORM_BATCH_NORM_KERNEL_H_
