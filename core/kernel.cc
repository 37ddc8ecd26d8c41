#include "core/kernel.h"

#include <algorithm>

#include "core/check.h"
#include "core/device_runtime.h"

namespace tessera {
namespace {

std::vector<KernelSlotBase*>& MutableSlots() {
  static auto* const slots = new std::vector<KernelSlotBase*>();
  return *slots;
}

}  // namespace

void KernelSlotBase::SetKernel(Device device, AnyFunction fn) {
  kernels_[static_cast<int>(device)] = fn;
  auto& slots = MutableSlots();
  if (std::find(slots.begin(), slots.end(), this) == slots.end()) slots.push_back(this);
}

void KernelSlotBase::FailMissing(Device device) const {
  const char* advice = device != Device::kCuda ? ""
                       : HasRuntime(device)
                           ? ", although it was configured with -DTESSERA_CUDA=ON: the operation "
                             "has no CUDA kernel yet; train.device=cpu runs it"
                           : "; configure with -DTESSERA_CUDA=ON";
  LOG(FATAL) << name_ << ": this build has no kernel for device " << Name(device) << advice;
  __builtin_unreachable();
}

const std::vector<KernelSlotBase*>& AllKernelSlots() { return MutableSlots(); }

void RedirectKernels(Device from, Device to) {
  for (KernelSlotBase* slot : MutableSlots()) {
    if (slot->Has(to)) {
      slot->kernels_[static_cast<int>(from)] = slot->kernels_[static_cast<int>(to)];
    }
  }
}

void FinishKernels(Device device) { RuntimeOf(device).Synchronize(); }

}  // namespace tessera
