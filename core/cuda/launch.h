// Starting kernels, for the host functions of `.cu` files, which include neither Abseil nor
// tensor.h:
//
//   KERNEL(256) Scale(float* x, int64_t n, float factor) {...}
//   void ScaleCuda(const ScaleArgs& args) {
//     Launch<Scale>({.x = CeilDiv(args.n, 256)}, {.x = 256}, 0, CurrentStream(), args.x, args.n,
//     2);
//   }
//   REGISTER_CUDA_KERNEL(scale, ScaleCuda);
//
// Errors of a launch are those of a programmer: they end the program and name the kernel.
#ifndef TESSERA_CORE_CUDA_LAUNCH_H_
#define TESSERA_CORE_CUDA_LAUNCH_H_

#include <cstdint>
#include <tuple>

#include "core/allocator.h"
#include "core/device.h"
#include "core/kernel.h"

struct CUstream_st;

namespace tessera {

using Stream = CUstream_st*;  // cudaStream_t

// Blocks of a grid, or threads of a block.
struct Extent {
  int64_t x = 1, y = 1, z = 1;
};

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The stream on which everything of a training step runs, in order.
Stream CurrentStream();

// The name of a kernel with its template arguments, inside the compiler's name of this function.
template <auto kKernel>
const char* KernelName() {
  return __PRETTY_FUNCTION__;
}

// Starts kKernel with `shared_bytes` of dynamic shared memory; arguments are converted to the types
// of its parameters. A grid without blocks does nothing.
template <auto kKernel, typename... Args>
void Launch(const Extent& grid, const Extent& block, int64_t shared_bytes, Stream stream,
            Args... args);

// Memory on the device for the time of a host function: kernels that it launched may still use it
// afterwards, as whoever gets it next is behind them on the stream.
template <typename T>
class Workspace {
 public:
  explicit Workspace(int64_t n);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  T* data() const { return reinterpret_cast<T*>(block_->data); }

 private:
  MemoryBlock* block_;
};

}  // namespace tessera

#ifdef TESSERA_EMULATOR
#include "tests/emulator/launch-inl.h"
#else
#include "core/cuda/launch-inl.h"
#endif

namespace tessera {

#define REGISTER_CUDA_KERNEL(slot, fn) REGISTER_KERNEL(slot, ::tessera::Device::kCuda, fn)

template <typename T>
Workspace<T>::Workspace(int64_t n)
    : block_(Allocate(n * static_cast<int64_t>(sizeof(T)), Device::kCuda)) {}

template <typename T>
Workspace<T>::~Workspace() {
  Deallocate(block_, Device::kCuda);
}

}  // namespace tessera

#endif  // TESSERA_CORE_CUDA_LAUNCH_H_
