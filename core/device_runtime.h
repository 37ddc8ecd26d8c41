// What the runtime of a device offers to the host: memory, copies and waiting. The CPU has one in
// every build; a GPU's is registered by core/cuda/runtime.cu.
#ifndef TESSERA_CORE_DEVICE_RUNTIME_H_
#define TESSERA_CORE_DEVICE_RUNTIME_H_

#include <cstdint>
#include <string>

#include "core/device.h"

namespace tessera {

enum class CopyKind { kToDevice, kToHost, kOnDevice };

// Work on the device runs in the order in which the host asked for it, kernels included.
class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;

  // Why the device can not be used on this machine; empty if it can.
  virtual std::string Problem() = 0;
  // "NVIDIA H100, 78 GiB", for logs.
  virtual std::string Description() = 0;
  virtual int64_t AvailableBytes() = 0;  // memory that this process may still take

  // Memory of kTensorAlignment, or null when there is none left.
  virtual void* Allocate(int64_t bytes) = 0;
  virtual void Free(void* p, int64_t bytes) = 0;
  // Locks host memory for faster copies, for as long as it is mapped; what can not be locked is
  // copied as well, only slower.
  virtual void PinHostMemory(void* p, int64_t bytes) = 0;
  virtual void UnpinHostMemory(void* p) = 0;

  // Returns when the host may use its side again: a copy to the host has arrived then.
  virtual void Copy(void* to, const void* from, int64_t bytes, CopyKind kind) = 0;
  virtual void Fill(void* p, uint8_t byte, int64_t bytes) = 0;
  // Returns when everything asked for so far is done.
  virtual void Synchronize() = 0;
};

// `runtime` must live as long as the program.
void RegisterRuntime(Device device, DeviceRuntime* runtime);
bool HasRuntime(Device device);
// Ends the program, naming the build option, when the build has none.
DeviceRuntime& RuntimeOf(Device device);

}  // namespace tessera

#endif  // TESSERA_CORE_DEVICE_RUNTIME_H_
