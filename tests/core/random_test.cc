#include "core/random.h"

#include <gtest/gtest.h>

#include <cmath>

namespace tessera {
namespace {

TEST(Philox, MatchesThePublishedKnownAnswers) {
  // Known-answer vectors of the Random123 distribution for philox4x32-10.
  const std::array<uint32_t, 4> zero = Philox4x32({0, 0, 0, 0}, {0, 0});
  EXPECT_EQ(zero, (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint32_t f = 0xffffffff;
  const std::array<uint32_t, 4> ones = Philox4x32({f, f, f, f}, {f, f});
  EXPECT_EQ(ones, (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(RandomStream, DependsOnEveryPartOfItsName) {
  const uint32_t base = RandomStream(1, Purpose::kTest, 2, 3).Next();
  EXPECT_EQ(base, RandomStream(1, Purpose::kTest, 2, 3).Next());
  EXPECT_NE(base, RandomStream(2, Purpose::kTest, 2, 3).Next());
  EXPECT_NE(base, RandomStream(1, Purpose::kInit, 2, 3).Next());
  EXPECT_NE(base, RandomStream(1, Purpose::kTest, 3, 3).Next());
  EXPECT_NE(base, RandomStream(1, Purpose::kTest, 2, 4).Next());
}

TEST(RandomStream, IntegersCoverTheirRangeEvenly) {
  RandomStream random(7, Purpose::kTest);
  std::array<int, 5> counts = {};
  for (int i = 0; i < 50000; ++i) ++counts[random.Integer(-2, 2) + 2];
  for (int count : counts) EXPECT_NEAR(count, 10000, 450);
}

TEST(RandomStream, NormalAndBetaHaveTheirMoments) {
  RandomStream random(11, Purpose::kTest);
  const int n = 65536;
  double sum = 0, sum2 = 0, beta = 0, beta2 = 0;
  for (int i = 0; i < n; ++i) {
    const double x = random.Normal();
    const double b = random.Beta(0.8, 0.8);
    sum += x, sum2 += x * x, beta += b, beta2 += b * b;
  }
  EXPECT_NEAR(sum / n, 0.0, 0.016);
  EXPECT_NEAR(sum2 / n, 1.0, 0.022);
  EXPECT_NEAR(beta / n, 0.5, 0.006);
  EXPECT_NEAR(beta2 / n - 0.25, 0.25 / (2 * 0.8 + 1), 0.003);
}

}  // namespace
}  // namespace tessera
