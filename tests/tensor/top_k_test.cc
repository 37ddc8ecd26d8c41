#include "tensor/ops/top_k/top_k.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "tests/op_testing.h"

namespace tessera {
namespace {

TEST(TopK, GivesTheFirstOfTheRowsSorted) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t columns : {1, 5, 100}) {
      const Tensor x = RandomTensor({2, 17, columns}, dtype, 1);
      // Some equal elements, whose order must be kept.
      for (int64_t i = 0; i < x.numel(); ++i) Set(x, i, std::round(4 * At(x, i)));
      const int64_t k = std::min<int64_t>(columns, 5);
      const auto [values, indices] = ops::TopK(x, k);
      EXPECT_EQ(indices.shape(), Shape({2, 17, k}));
      for (int64_t r = 0; r < 34; ++r) {
        std::vector<int32_t> order(columns);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
          return At(x, r * columns + a) > At(x, r * columns + b);
        });
        for (int64_t j = 0; j < k; ++j) {
          EXPECT_EQ(indices.data<int32_t>()[r * k + j], order[j]);
          EXPECT_EQ(At(values, r * k + j), At(x, r * columns + order[j]));
        }
      }
    }
  }
}

TEST(TopK, PutsNanLast) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {NAN, 1, NAN, -kInfinity, 2};
  const auto [values, indices] = ops::TopK(Tensor::From<float>({5}, x), 5);
  const std::vector<int32_t> expected = {4, 1, 3, 0, 2};
  for (int j = 0; j < 5; ++j) EXPECT_EQ(indices.data<int32_t>()[j], expected[j]);
}

TEST(TopK, NoRowsAreFine) {
  EXPECT_EQ(ops::TopK(Tensor::Empty({0, 5}, DType::kF32), 2).values.shape(), Shape({0, 2}));
}

}  // namespace
}  // namespace tessera
