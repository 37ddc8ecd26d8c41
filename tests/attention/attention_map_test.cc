#include "attention/attention_map.h"

#include <gtest/gtest.h>

#include <cmath>

#include "attention/channel/channel.h"
#include "attention/window/window.h"
#include "tests/op_testing.h"

namespace tessera {
namespace {

double MeanOf(const Tensor& map) {
  double sum = 0;
  for (int64_t i = 0; i < map.numel(); ++i) sum += map.data<float>()[i];
  return sum / static_cast<double>(map.numel());
}

// One head in one window of 2 x 2: the columns of its 4 x 4 softmax, summed by hand.
TEST(AttentionMap, OfWindowsIsTheWeightThatPositionsGet) {
  const int64_t d = 3;
  const Tensor qkv = RandomTensor({1, 2, 2, 3 * d}, DType::kF32, 1, -2, 2);
  const Tensor map =
      AttentionReceived(qkv, [](const Tensor& in) { return WindowAttention(in, Tensor(), 1, 2); });
  double expected[4] = {};
  for (int i = 0; i < 4; ++i) {
    double weights[4], sum = 0;
    for (int j = 0; j < 4; ++j) {
      double dot = 0;
      for (int64_t c = 0; c < d; ++c) {
        dot += qkv.data<float>()[i * 3 * d + c] * qkv.data<float>()[j * 3 * d + d + c];
      }
      sum += weights[j] = std::exp(dot / std::sqrt(3.0));
    }
    for (int j = 0; j < 4; ++j) expected[j] += weights[j] / sum;
  }
  for (int j = 0; j < 4; ++j) EXPECT_NEAR(map.data<float>()[j], expected[j], 1e-5) << j;
}

// A position whose key answers every query takes the weight of its window, and of no other.
TEST(AttentionMap, OfWindowsShowsTheKeyThatAllQueriesMatch) {
  const Tensor qkv = Tensor::Zeros({1, 4, 4, 12}, DType::kF32);
  for (int64_t i = 0; i < 16; ++i) qkv.data<float>()[i * 12] = 1.0f;
  qkv.data<float>()[5 * 12 + 4] = 100.0f;  // the key of row 1, column 1
  const Tensor map =
      AttentionReceived(qkv, [](const Tensor& in) { return WindowAttention(in, Tensor(), 1, 2); });
  EXPECT_NEAR(map.data<float>()[5], 4, 1e-4);
  EXPECT_NEAR(map.data<float>()[0], 0, 1e-4);
  EXPECT_NEAR(map.data<float>()[15], 1, 1e-4);
}

TEST(AttentionMap, OfChannelsIsLargeWhereTheLogitsComeFrom) {
  for (const auto version :
       {ChannelAttentionVersion::kKeysTimesValues, ChannelAttentionVersion::kQueriesTimesKeys}) {
    attention::ChannelAttention module(8, 2, /*qkv_bias=*/false, version);
    const ParameterStore store(module, 1, false);
    const Tensor x = RandomTensor({2, 3, 5, 8}, DType::kF32, 2, -0.1, 0.1);
    for (int64_t c = 0; c < 8; ++c) x.data<float>()[7 * 8 + c] *= 30;
    const Tensor map = module.AttentionMap(x);
    EXPECT_EQ(map.shape(), Shape({2, 3, 5}));
    EXPECT_NEAR(MeanOf(map), 1, 1e-5);
    EXPECT_GT(map.data<float>()[7], 10);
    EXPECT_LT(map.data<float>()[15 + 7], 10);
  }
}

TEST(AttentionMap, WithoutAnyWeightIsEven) {
  const Tensor map = Tensor::Zeros({1, 2, 2}, DType::kF32);
  NormalizeAttentionMap(map);
  EXPECT_EQ(map.data<float>()[3], 1.0f);
}

}  // namespace
}  // namespace tessera
