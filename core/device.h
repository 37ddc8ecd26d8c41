// The devices that tensors live on.
#ifndef TESSERA_CORE_DEVICE_H_
#define TESSERA_CORE_DEVICE_H_

#include <cstdint>

namespace tessera {

enum class Device : uint8_t { kCpu, kCuda };
inline constexpr int kNumDevices = 2;

constexpr const char* Name(Device device) { return device == Device::kCpu ? "cpu" : "cuda"; }

}  // namespace tessera

#endif  // TESSERA_CORE_DEVICE_H_
