// Random tensors, and their elements as doubles.
#ifndef TESSERA_TESTS_TENSOR_TESTING_H_
#define TESSERA_TESTS_TENSOR_TESTING_H_

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/random.h"
#include "tensor/tensor.h"

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

#endif  // TESSERA_TESTS_TENSOR_TESTING_H_
