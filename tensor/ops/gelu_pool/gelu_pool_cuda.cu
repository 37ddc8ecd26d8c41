#include "core/cuda/device.h"
#include "core/cuda/launch.h"
#include "tensor/ops/activation/gelu_cuda.h"
#include "tensor/ops/float_types.h"
#include "tensor/ops/gelu_pool/gelu_pool_kernel.h"

namespace tessera {
namespace {

constexpr int kThreads = 256;

// Boundaries of the cells of an axis (pooled_axis.h, whose members are the host's).
struct Axis {
  int64_t size, cells;

  DEVICE int64_t Begin(int64_t i) const { return i * size / cells; }
  DEVICE int64_t End(int64_t i) const { return ((i + 1) * size + cells - 1) / cells; }
  DEVICE int64_t FirstCell(int64_t pixel) const { return pixel * cells / size; }
  DEVICE int64_t EndCell(int64_t pixel) const { return ((pixel + 1) * cells + size - 1) / size; }
};

// A thread for a channel of a cell; neighbouring threads read neighbouring channels.
template <typename T>
KERNEL(kThreads)
Forward(const T* x, float* y, Axis rows, Axis columns, int64_t channels, int64_t n) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= n) return;
  const int64_t c = at % channels, j = at / channels % columns.cells;
  const int64_t i = at / (channels * columns.cells) % rows.cells;
  const int64_t image = at / (channels * columns.cells * rows.cells);
  float sum = 0;
  for (int64_t row = rows.Begin(i); row < rows.End(i); ++row) {
    for (int64_t column = columns.Begin(j); column < columns.End(j); ++column) {
      sum +=
          GeluOf(LoadFloat(x + ((image * rows.size + row) * columns.size + column) * channels + c));
    }
  }
  const int64_t area = (rows.End(i) - rows.Begin(i)) * (columns.End(j) - columns.Begin(j));
  y[at] = sum / static_cast<float>(area);
}

// A thread for a channel of a pixel.
template <typename T>
KERNEL(kThreads)
Backward(const float* dy, const T* x, T* dx, Axis rows, Axis columns, int64_t channels, int64_t n) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= n) return;
  const int64_t c = at % channels, column = at / channels % columns.size;
  const int64_t row = at / (channels * columns.size) % rows.size;
  const int64_t image = at / (channels * columns.size * rows.size);
  float sum = 0;
  for (int64_t i = rows.FirstCell(row); i < rows.EndCell(row); ++i) {
    for (int64_t j = columns.FirstCell(column); j < columns.EndCell(column); ++j) {
      const int64_t area = (rows.End(i) - rows.Begin(i)) * (columns.End(j) - columns.Begin(j));
      sum += dy[((image * rows.cells + i) * columns.cells + j) * channels + c] /
             static_cast<float>(area);
    }
  }
  StoreFloat(sum * GeluDerivativeOf(LoadFloat(x + at)), dx + at);
}

Axis AxisOf(const PooledAxis& axis) { return {axis.size, axis.cells}; }

void GeluPoolCuda(const GeluPoolArgs& args) {
  const int64_t n = args.batch * args.rows.cells * args.columns.cells * args.channels;
  WithFloatType(args.x_dtype, [&](auto type) {
    using T = decltype(type);
    Launch<Forward<T>>({.x = CeilDiv(n, kThreads)}, {.x = kThreads}, 0, CurrentStream(),
                       static_cast<const T*>(args.x), args.y, AxisOf(args.rows),
                       AxisOf(args.columns), args.channels, n);
  });
}

void GeluPoolBackwardCuda(const GeluPoolBackwardArgs& args) {
  const int64_t n = args.batch * args.rows.size * args.columns.size * args.channels;
  WithFloatType(args.x_dtype, [&](auto type) {
    using T = decltype(type);
    Launch<Backward<T>>({.x = CeilDiv(n, kThreads)}, {.x = kThreads}, 0, CurrentStream(), args.dy,
                        static_cast<const T*>(args.x), static_cast<T*>(args.dx), AxisOf(args.rows),
                        AxisOf(args.columns), args.channels, n);
  });
}

REGISTER_CUDA_KERNEL(gelu_pool, GeluPoolCuda);
REGISTER_CUDA_KERNEL(gelu_pool_backward, GeluPoolBackwardCuda);

}  // namespace
}  // namespace tessera
