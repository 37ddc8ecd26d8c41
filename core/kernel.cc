#include "core/kernel.h"

#include <algorithm>

#include "core/check.h"

namespace tessera {
namespace {

std::vector<const KernelSlotBase*>& MutableSlots() {
  static auto* const slots = new std::vector<const KernelSlotBase*>();
  return *slots;
}

}  // namespace

void KernelSlotBase::MarkRegistered(Device device) {
  registered_[static_cast<int>(device)] = true;
  auto& slots = MutableSlots();
  if (std::find(slots.begin(), slots.end(), this) == slots.end()) slots.push_back(this);
}

void KernelSlotBase::FailMissing(Device device) const {
  LOG(FATAL) << name_ << ": this build has no kernel for device " << Name(device)
             << (device == Device::kCuda ? "; configure with -DTESSERA_CUDA=ON" : "");
  __builtin_unreachable();
}

const std::vector<const KernelSlotBase*>& AllKernelSlots() { return MutableSlots(); }

}  // namespace tessera
