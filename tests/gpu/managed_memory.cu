// Linked to tests of ops: with TESSERA_TEST_DEVICE=cuda in the environment they run the CUDA kernels
// instead of the CPU's, on tensors in memory that both the CPU and the GPU can reach.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/device_runtime.h"
#include "core/kernel.h"

namespace tessera {
namespace {

constexpr int kNoDeviceExitCode = 77;

class ManagedRuntime : public DeviceRuntime {
 public:
  std::string Problem() override { return ""; }
  std::string Description() override { return "memory of both the CPU and the GPU"; }
  int64_t AvailableBytes() override { return RuntimeOf(Device::kCuda).AvailableBytes(); }

  void* Allocate(int64_t bytes) override {
    void* p = nullptr;
    if (cudaMallocManaged(&p, static_cast<size_t>(bytes)) != cudaSuccess) return nullptr;
    return p;
  }
  void Free(void* p, int64_t) override { cudaFree(p); }
  void PinHostMemory(void*, int64_t) override {}
  void UnpinHostMemory(void*) override {}

  void Copy(void* to, const void* from, int64_t bytes, CopyKind) override {
    Synchronize();
    std::memcpy(to, from, static_cast<size_t>(bytes));
  }
  void Fill(void* p, uint8_t byte, int64_t bytes) override {
    Synchronize();
    std::memset(p, byte, static_cast<size_t>(bytes));
  }
  void Synchronize() override { RuntimeOf(Device::kCuda).Synchronize(); }
};

// Runs after the registration of the kernels of all libraries below, and before that of tests.
[[maybe_unused]] const bool on_gpu = [] {
  const char* const device = std::getenv("TESSERA_TEST_DEVICE");
  if (device == nullptr || std::strcmp(device, "cuda") != 0) return false;
  // Tests read results without waiting, as on the CPU.
  setenv("CUDA_LAUNCH_BLOCKING", "1", /*overwrite=*/1);
  if (const std::string problem = RuntimeOf(Device::kCuda).Problem(); !problem.empty()) {
    std::fprintf(stderr, "%s\n", problem.c_str());
    std::_Exit(kNoDeviceExitCode);
  }
  RegisterRuntime(Device::kCpu, new ManagedRuntime());
  RedirectKernels(Device::kCpu, Device::kCuda);
  return true;
}();

}  // namespace
}  // namespace tessera
