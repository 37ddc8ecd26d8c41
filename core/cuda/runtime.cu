#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>

#include "core/cuda/launch.h"

namespace tessera {
namespace {

constexpr int64_t kSharedWithoutAsking = int64_t{48} << 10;

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

}  // namespace

Stream CurrentStream() {
  static const Stream stream = NewStream();
  return stream;
}

void CopyToHost(void* host, const void* device, int64_t bytes, Stream stream) {
  CheckCuda(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream), "copy to host");
  CheckCuda(cudaStreamSynchronize(stream), "copy to host");
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
