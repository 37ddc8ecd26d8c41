// What the tests of ops share: random tensors, references in double, every instruction set, any
// number of threads.
#ifndef TESSERA_TESTS_OP_TESTING_H_
#define TESSERA_TESTS_OP_TESTING_H_

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "core/allocator.h"
#include "core/random.h"
#include "tensor/simd_targets.h"
#include "tensor/tensor.h"

#include "hwy/highway.h"

namespace tessera {

inline double At(const Tensor& t, int64_t i) {
  return t.dtype() == DType::kF32 ? t.data<float>()[i] : static_cast<float>(t.data<BF16>()[i]);
}

inline void Set(const Tensor& t, int64_t i, double value) {
  if (t.dtype() == DType::kF32) {
    t.data<float>()[i] = static_cast<float>(value);
  } else {
    t.data<BF16>()[i] = BF16(static_cast<float>(value));
  }
}

// Uniform over [low, high).
inline Tensor RandomTensor(const Shape& shape, DType dtype, uint64_t seed, double low = -1,
                           double high = 1) {
  RandomStream random(seed, Purpose::kTest);
  Tensor t = Tensor::Empty(shape, dtype);
  for (int64_t i = 0; i < t.numel(); ++i) Set(t, i, random.Uniform(low, high));
  return t;
}

inline std::vector<double> ToDouble(const Tensor& t) {
  std::vector<double> values(t.numel());
  for (int64_t i = 0; i < t.numel(); ++i) values[i] = At(t, i);
  return values;
}

// Each element within `tolerance` * (1 + |expected|), and for bf16 within half a step of its
// rounding more.
inline void ExpectClose(const Tensor& t, const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(t.numel(), static_cast<int64_t>(expected.size()));
  const double rounding = t.dtype() == DType::kBF16 ? 0x1p-8 : 0;
  for (int64_t i = 0; i < t.numel(); ++i) {
    const double bound = tolerance * (1 + std::abs(expected[i])) + rounding * std::abs(expected[i]);
    ASSERT_NEAR(At(t, i), expected[i], bound) << "element " << i << " of " << t.shape();
  }
}

}  // namespace tessera

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
