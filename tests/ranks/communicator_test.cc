#include "core/communicator.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace tessera {
namespace {

TEST(Communicator, AddsUpOverAllRanks) {
  const Communicator& ranks = Communicator::World();
  ASSERT_EQ(ranks.size(), 3) << "to be run by mpirun -n 3";
  EXPECT_EQ(ranks.size_here(), 3);
  const auto rank = static_cast<float>(ranks.rank());
  for (const size_t n : {size_t{0}, size_t{1}, size_t{1000003}}) {
    std::vector<float> floats(n, rank + 1);
    ranks.AllReduceSum(absl::MakeSpan(floats));
    for (const float x : floats) ASSERT_EQ(x, 6);
  }
  double numbers[] = {1e-300 * (rank + 1), static_cast<double>(int64_t{1} << 50)};
  ranks.AllReduceSum(absl::MakeSpan(numbers));
  EXPECT_DOUBLE_EQ(numbers[0], 6e-300);
  EXPECT_EQ(numbers[1], 3.0 * (int64_t{1} << 50));
  EXPECT_EQ(ranks.Mean(rank * rank), 5.0 / 3.0);
}

TEST(Communicator, KnowsWhetherAnyRankSaysSo) {
  const Communicator& ranks = Communicator::World();
  EXPECT_FALSE(ranks.Any(false));
  for (int64_t r = 0; r < ranks.size(); ++r) EXPECT_TRUE(ranks.Any(ranks.rank() == r));
}

TEST(Communicator, GathersBytesInTheOrderOfTheRanks) {
  const Communicator& ranks = Communicator::World();
  const auto own = [](int64_t r) { return std::string(r * 70000, static_cast<char>('a' + r)); };
  const std::vector<std::string> all = ranks.AllGather(own(ranks.rank()));
  ASSERT_EQ(all.size(), 3u);
  for (int64_t r = 0; r < 3; ++r) EXPECT_EQ(all[r], own(r)) << r;
}

}  // namespace
}  // namespace tessera
