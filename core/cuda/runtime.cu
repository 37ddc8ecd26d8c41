#include <cuda_runtime.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include "core/cuda/launch.h"
#include "core/device_runtime.h"

namespace tessera {
namespace {

constexpr int64_t kSharedWithoutAsking = int64_t{48} << 10;
// Host memory that is not page-locked is read before an asynchronous copy of so few bytes returns.
constexpr int64_t kStagedCopyBytes = int64_t{64} << 10;

void CheckCuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s (%s)\n", what, cudaGetErrorString(error), cudaGetErrorName(error));
  std::abort();
}

dim3 ToDim3(const Extent& extent) {
  return dim3(static_cast<unsigned>(extent.x), static_cast<unsigned>(extent.y),
              static_cast<unsigned>(extent.z));
}

Stream NewStream() {
  Stream stream;
  CheckCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return stream;
}

bool IsPinned(const void* p) {
  cudaPointerAttributes attributes;
  CheckCuda(cudaPointerGetAttributes(&attributes, p), "cudaPointerGetAttributes");
  return attributes.type == cudaMemoryTypeHost;
}

cudaDeviceProp Properties() {
  cudaDeviceProp properties;
  CheckCuda(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return properties;
}

// The first GPU that CUDA_VISIBLE_DEVICES leaves visible.
class CudaRuntime : public DeviceRuntime {
 public:
  std::string Problem() override {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
      cudaGetLastError();
      return std::string("this machine has no GPU that CUDA can use (") +
             cudaGetErrorString(error == cudaSuccess ? cudaErrorNoDevice : error) + ")";
    }
    const cudaDeviceProp p = Properties();
    if (p.major == 8 || (p.major == 9 && p.minor == 0)) return "";
    return std::string(p.name) + " has compute capability " + std::to_string(p.major) + "." +
           std::to_string(p.minor) + ", and kernels are built for 8.x and 9.0";
  }

  std::string Description() override {
    const cudaDeviceProp p = Properties();
    return std::string(p.name) + ", " + std::to_string(p.totalGlobalMem >> 30) + " GiB";
  }

  int64_t AvailableBytes() override {
    size_t available = 0, total = 0;
    CheckCuda(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
    return static_cast<int64_t>(available);
  }

  void* Allocate(int64_t bytes) override {
    if (!in_use_) PinWaiting();
    void* p = nullptr;
    const cudaError_t error = cudaMalloc(&p, static_cast<size_t>(bytes));
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    CheckCuda(error, "cudaMalloc");
    return p;
  }
  void Free(void* p, int64_t) override { CheckCuda(cudaFree(p), "cudaFree"); }

  // Only once something lives on the device: a program that stays on the CPU starts no CUDA.
  void PinHostMemory(void* p, int64_t bytes) override {
    const std::lock_guard lock(pin_mutex_);
    if (in_use_) {
      Pin(p, bytes);
    } else {
      waiting_.emplace(p, bytes);
    }
  }
  void UnpinHostMemory(void* p) override {
    const std::lock_guard lock(pin_mutex_);
    if (waiting_.erase(p) == 0 && cudaHostUnregister(p) != cudaSuccess) cudaGetLastError();
  }

  void Copy(void* to, const void* from, int64_t bytes, CopyKind kind) override {
    const Stream stream = CurrentStream();
    CheckCuda(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream),
              "cudaMemcpyAsync");
    const bool returns_early =
        kind == CopyKind::kOnDevice ||
        (kind == CopyKind::kToDevice && bytes <= kStagedCopyBytes && !IsPinned(from));
    if (!returns_early) CheckCuda(cudaStreamSynchronize(stream), "cudaMemcpyAsync");
  }

  void Fill(void* p, uint8_t byte, int64_t bytes) override {
    CheckCuda(cudaMemsetAsync(p, byte, static_cast<size_t>(bytes), CurrentStream()),
              "cudaMemsetAsync");
  }

  void Synchronize() override {
    CheckCuda(cudaStreamSynchronize(CurrentStream()), "cudaStreamSynchronize");
  }

 private:
  static void Pin(void* p, int64_t bytes) {
    if (cudaHostRegister(p, static_cast<size_t>(bytes), cudaHostRegisterDefault) != cudaSuccess) {
      cudaGetLastError();
    }
  }
  void PinWaiting() {
    const std::lock_guard lock(pin_mutex_);
    for (const auto& [p, bytes] : waiting_) Pin(p, bytes);
    waiting_.clear();
    in_use_ = true;
  }

  std::mutex pin_mutex_;
  std::map<void*, int64_t> waiting_;  // host memory to lock at the first use of the device
  std::atomic<bool> in_use_ = false;
};

[[maybe_unused]] const bool registered = [] {
  RegisterRuntime(Device::kCuda, new CudaRuntime());
  return true;
}();

}  // namespace

Stream CurrentStream() {
  static const Stream stream = NewStream();
  return stream;
}

namespace internal {

void LaunchKernel(const void* kernel, const char* name, const Extent& grid, const Extent& block,
                  int64_t shared_bytes, Stream stream, void** parameters) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  if (shared_bytes > kSharedWithoutAsking) {
    CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shared_bytes)),
              name);
  }
  CheckCuda(cudaLaunchKernel(kernel, ToDim3(grid), ToDim3(block), parameters, shared_bytes, stream),
            name);
}

}  // namespace internal
}  // namespace tessera
