// Typed kernel slots: how an op reaches the code that runs on a device.
//
// An op's header declares a slot, its .cc defines it, and each device's file fills it:
//   layer_norm.h        extern KernelSlot<void(const LayerNormArgs&)> layer_norm_forward;
//   layer_norm.cc       constinit KernelSlot<...> layer_norm_forward("layer_norm_forward");
//   layer_norm_cpu.cc   REGISTER_KERNEL(layer_norm_forward, Device::kCpu, LayerNormForwardCpu);
// Kernels take pointers and sizes in a plain struct, never a Tensor.
#ifndef TESSERA_CORE_KERNEL_H_
#define TESSERA_CORE_KERNEL_H_

#include <array>
#include <initializer_list>
#include <utility>
#include <vector>

#include "core/device.h"
#include "core/dtype.h"
#include "core/trace.h"

namespace tessera {

// The part of a slot that does not depend on its function type; all slots are listed by
// AllKernelSlots().
class KernelSlotBase {
 public:
  constexpr explicit KernelSlotBase(const char* name) : name_(name) {}
  const char* name() const { return name_; }
  bool Has(Device device) const { return kernels_[static_cast<int>(device)] != nullptr; }

 protected:
  using AnyFunction = void (*)();
  void SetKernel(Device device, AnyFunction fn);
  AnyFunction kernel(Device device) const { return kernels_[static_cast<int>(device)]; }
  [[noreturn]] void FailMissing(Device device) const;

 private:
  friend void RedirectKernels(Device from, Device to);
  const char* name_;
  std::array<AnyFunction, kNumDevices> kernels_ = {};
};

// What one call of a kernel computes, and moves between memory and the processor at the least. Args
// structs that know it have a member `KernelCost Cost() const`; traces then tell how far the kernel
// is from what the machine can do.
struct KernelCost {
  double flops = 0;
  double bytes = 0;

  // Of reading or writing `n` elements of each of these types, with next to no arithmetic.
  static KernelCost OfStreams(int64_t n, std::initializer_list<DType> streams) {
    KernelCost cost;
    for (const DType dtype : streams) cost.bytes += static_cast<double>(n * SizeOf(dtype));
    return cost;
  }
};

template <typename Args>
concept KnowsItsCost = requires(const Args& args) {
  args.Cost();
};

// Every slot for which some device has registered a kernel, in order of registration.
const std::vector<KernelSlotBase*>& AllKernelSlots();

// From now on, calls for device `from` run the kernels of `to` where there are some: so tests of
// the CPU's kernels, with tensors of the CPU, test those of another device that can reach this
// memory.
void RedirectKernels(Device from, Device to);

// Waits for the device to finish what it was asked for, so that a trace counts its time.
void FinishKernels(Device device);

template <typename Fn>
class KernelSlot : public KernelSlotBase {
 public:
  using KernelSlotBase::KernelSlotBase;

  // Runs the device's kernel; CHECK-fails naming op, device and build option when the build has
  // none.
  template <typename... Args>
  void operator()(Device device, Args&&... args) const {
    Fn* fn = reinterpret_cast<Fn*>(kernel(device));
    if (fn == nullptr) FailMissing(device);
    if (!TracingOn()) return fn(std::forward<Args>(args)...);
    const KernelCost cost = CostOf(args...);
    const TraceScope trace(name(), cost.flops, cost.bytes);
    fn(std::forward<Args>(args)...);
    FinishKernels(device);
  }
  bool Register(Device device, Fn* fn) {
    SetKernel(device, reinterpret_cast<AnyFunction>(fn));
    return true;
  }

 private:
  template <typename... Args>
  static KernelCost CostOf(const Args&... args) {
    if constexpr ((KnowsItsCost<Args> && ...)) {
      return (args.Cost(), ...);
    } else {
      return {};
    }
  }
};

#define REGISTER_KERNEL(slot, device, fn) \
  [[maybe_unused]] static const bool slot##_registered = (slot).Register(device, fn)

}  // namespace tessera

#endif  // TESSERA_CORE_KERNEL_H_
