// What the tests of ops share: random tensors, references in double, every instruction set, any
// number of threads.
#ifndef TESSERA_TESTS_OP_TESTING_H_
#define TESSERA_TESTS_OP_TESTING_H_

#include <gtest/gtest.h>
#include <omp.h>

#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/allocator.h"
#include "tensor/simd_targets.h"
#include "tests/tensor_testing.h"

#include "hwy/highway.h"

#ifdef TESSERA_EMULATOR
#include "tests/emulator/op_testing-inl.h"
#else
namespace tessera {

// The instruction sets that kernels are compiled for and this machine has.
inline std::vector<int64_t> SimdTargets() {
  std::vector<int64_t> targets;
  for (const int64_t target : {HWY_SSE4, HWY_AVX2, HWY_AVX3}) {
    if ((hwy::SupportedTargets() & target) != 0) targets.push_back(target);
  }
  return targets;
}

// A test that runs once per instruction set, with memory poisoned: what an op fails to write is a
// NaN.
class OnEveryTarget : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    SetPoisonMemory(true);
    Choose(GetParam());
  }
  void TearDown() override {
    SetPoisonMemory(false);
    Choose(0);
  }

 private:
  static void Choose(int64_t target) {  // 0: whatever the machine has
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

#define INSTANTIATE_ON_EVERY_TARGET(suite)                                    \
  INSTANTIATE_TEST_SUITE_P(Simd, suite, testing::ValuesIn(SimdTargets()),     \
                           [](const testing::TestParamInfo<int64_t>& info) {  \
                             return std::string(hwy::TargetName(info.param)); \
                           })

// Runs fn with 1, 2, 4 and 8 threads and compares all bits of the tensors that it returns. Each
// time in a thread of its own, whose oneDNN primitives are made for that number.
inline void ExpectSameBitsForAnyThreads(const std::function<std::vector<Tensor>()>& fn) {
  std::vector<Tensor> expected;
  for (const int n : {1, 2, 4, 8}) {
    std::vector<Tensor> got;
    std::thread([&] {
      omp_set_num_threads(n);
      got = fn();
    }).join();
    if (expected.empty()) expected = got;
    for (size_t k = 0; k < expected.size(); ++k) {
      EXPECT_EQ(std::memcmp(got[k].raw(), expected[k].raw(), expected[k].bytes()), 0)
          << "result " << k << " with " << n << " threads";
    }
  }
}

}  // namespace tessera
#endif

#endif  // TESSERA_TESTS_OP_TESTING_H_
