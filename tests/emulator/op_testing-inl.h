// The part of tests/op_testing.h that differs on the emulator: tests that run once per instruction
// set there run here once per order in which threads and blocks get their turns.
#ifndef TESSERA_TESTS_EMULATOR_OP_TESTING_INL_H_
#define TESSERA_TESTS_EMULATOR_OP_TESTING_INL_H_

#include "tests/emulator/device_memory.h"
#include "tests/emulator/runtime.h"

namespace tessera {

inline constexpr emulator::Order kOrders[] = {
    emulator::Order::kAscending, emulator::Order::kDescending, emulator::Order::kRandom};

// All tests of the program run the device's kernels.
class EmulatedDevice : public testing::Environment {
 public:
  void SetUp() override { emulator::TakePlaceOfCpu(); }
};
inline testing::Environment* const emulated_device =
    testing::AddGlobalTestEnvironment(new EmulatedDevice());

class OnEveryTarget : public testing::TestWithParam<emulator::Order> {
 protected:
  void SetUp() override {
    SetPoisonMemory(true);
    emulator::SetOrder(GetParam());
  }
  void TearDown() override {
    SetPoisonMemory(false);
    emulator::SetOrder(emulator::Order::kAscending);
  }
};

inline std::string OrderName(const testing::TestParamInfo<emulator::Order>& info) {
  const char* const names[] = {"Ascending", "Descending", "Random"};
  return names[static_cast<int>(info.param)];
}

#define INSTANTIATE_ON_EVERY_TARGET(suite) \
  INSTANTIATE_TEST_SUITE_P(Emulated, suite, testing::ValuesIn(kOrders), OrderName)

// Runs fn in every order and compares all bits of the tensors that it returns.
inline void ExpectSameBitsForAnyThreads(const std::function<std::vector<Tensor>()>& fn) {
  emulator::SetOrder(kOrders[0]);
  const std::vector<Tensor> expected = fn();
  for (const emulator::Order order : {kOrders[1], kOrders[2]}) {
    emulator::SetOrder(order);
    const std::vector<Tensor> got = fn();
    for (size_t k = 0; k < expected.size(); ++k) {
      EXPECT_EQ(std::memcmp(got[k].raw(), expected[k].raw(), expected[k].bytes()), 0)
          << "result " << k << " in order " << static_cast<int>(order);
    }
  }
}

}  // namespace tessera

#endif  // TESSERA_TESTS_EMULATOR_OP_TESTING_INL_H_
