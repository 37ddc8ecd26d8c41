// Which kernel is there for which device. A program without a GPU's kernel for an operation ends
// when it asks for it: this list says beforehand which those are.
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <set>
#include <string>

#include "core/kernel.h"

namespace tessera {
namespace {

// Slots without a CUDA kernel, and why. Whoever adds an operation writes its kernel, or a line
// here.
const std::map<std::string, std::string>& CpuOnly() {
  static const auto* const slots = new std::map<std::string, std::string>{
      {"softmax", "evaluation and prediction copy the logits to the CPU"},
      {"top_k", "evaluation and prediction copy the logits to the CPU"},
  };
  return *slots;
}

TEST(KernelSlots, HaveAKernelForEveryDeviceOrAReasonForNone) {
  std::set<std::string> seen;
  std::printf("%-36s %-5s %s\n", "kernel", "cpu", "cuda");
  for (const KernelSlotBase* slot : AllKernelSlots()) {
    const std::string name = slot->name();
    EXPECT_TRUE(seen.insert(name).second) << "two slots are called " << name;
    const bool cpu = slot->Has(Device::kCpu), cuda = slot->Has(Device::kCuda);
    const auto reason = CpuOnly().find(name);
    std::printf("%-36s %-5s %s\n", name.c_str(), cpu ? "yes" : "-",
                cuda                        ? "yes"
                : reason == CpuOnly().end() ? "-"
                                            : ("-, " + reason->second).c_str());
    EXPECT_TRUE(cpu) << name << " has no CPU kernel";
    if (cuda) {
      EXPECT_TRUE(reason == CpuOnly().end()) << name << " has a CUDA kernel: take it off the list";
    } else {
      EXPECT_TRUE(reason != CpuOnly().end())
          << name << " has no CUDA kernel: add NAME_cuda.cu, or the reason to CpuOnly()";
    }
  }
  for (const auto& [name, reason] : CpuOnly()) {
    EXPECT_TRUE(seen.count(name) > 0) << "no slot is called " << name;
  }
}

KernelSlot<void(int)> without_kernels("without_kernels");

TEST(KernelSlotsDeathTest, NameOperationDeviceAndOptionWhenAKernelIsMissing) {
  EXPECT_DEATH(without_kernels(Device::kCpu, 1), "without_kernels: .*no kernel for device cpu");
  EXPECT_DEATH(without_kernels(Device::kCuda, 1),
               "without_kernels: .*no kernel for device cuda.*TESSERA_CUDA=ON.*train.device=cpu");
}

}  // namespace
}  // namespace tessera
