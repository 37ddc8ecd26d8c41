// Memory of the emulated device: the host can not touch it but through the runtime, as if it were a
// GPU's. A host function that reads or writes it ends the program with a segmentation fault.
#ifndef TESSERA_TESTS_EMULATOR_DEVICE_MEMORY_H_
#define TESSERA_TESTS_EMULATOR_DEVICE_MEMORY_H_

#include <cstdint>

namespace tessera::emulator {

// While one lives, device memory can be reached.
class DeviceMemoryAccess {
 public:
  DeviceMemoryAccess();
  ~DeviceMemoryAccess();
  DeviceMemoryAccess(const DeviceMemoryAccess&) = delete;
  DeviceMemoryAccess& operator=(const DeviceMemoryAccess&) = delete;
};

// Runs the kernels of the device wherever those of the CPU are asked for, on the CPU's tensors.
void TakePlaceOfCpu();

// From now on a launch whose arguments hold an address of the host's memory ends the program.
void ForbidHostPointers();
// Looks for one in the bytes of an argument of `kernel`; a no-op before ForbidHostPointers().
void CheckArgumentBytes(const char* kernel, const void* argument, int64_t bytes);
template <typename T>
void CheckArgument(const char* kernel, const T& argument) {
  CheckArgumentBytes(kernel, &argument, sizeof(argument));
}

}  // namespace tessera::emulator

#endif  // TESSERA_TESTS_EMULATOR_DEVICE_MEMORY_H_
