#include "attention/grid/grid.h"

#include <set>

#include "tests/op_testing.h"

namespace tessera {
namespace {

std::vector<std::string> Names(Module& module) {
  std::vector<std::string> names;
  module.VisitParameters([&](const std::string& name, Parameter&) { names.push_back(name); });
  return names;
}

attention::GridAttention::Options Options(Partition partition) {
  return {.attention = {.partition = partition, .num_heads = 2, .rows = 2, .columns = 3}};
}

TEST(GridAttentionModule, NamesItsParametersAsCheckpointsDo) {
  attention::GridAttention table(4, Options(Partition::kGrid));
  EXPECT_EQ(Names(table),
            (std::vector<std::string>{"qkv.weight", "qkv.bias", "proj.weight", "proj.bias",
                                      "rel_pos.relative_position_bias_table"}));
  attention::GridAttention::Options with_mlp = Options(Partition::kBlock);
  with_mlp.table = RelativeTable::kQueryMinusKey;
  with_mlp.mlp_hidden_dim = 8;
  attention::GridAttention mlp(4, with_mlp);
  EXPECT_EQ(Names(mlp).back(), "rel_pos.mlp.fc2.bias");
  const ParameterStore store(mlp, 1, true);
  EXPECT_EQ(store.Find("rel_pos.mlp.fc1.weight")->shape(), Shape({8, 2}));
  const Tensor y = mlp.Forward(RandomTensor({1, 4, 6, 4}, DType::kBF16, 2), {}, DType::kF32);
  for (int64_t i = 0; i < y.numel(); ++i) EXPECT_TRUE(std::isfinite(At(y, i)));
}

// A value in one pixel reaches exactly the pixels of its group.
TEST(GridAttentionModule, GroupsAreWindowsOrSpreadOverTheMap) {
  constexpr int64_t kHeight = 4, kWidth = 6;
  const auto reached = [](Partition partition, int64_t pixel) {
    const Tensor qkv = Tensor::Zeros({1, kHeight, kWidth, 3}, DType::kF32);
    qkv.data<float>()[pixel * 3 + 2] = 6;
    const Tensor bias = Tensor::Zeros({1, 6, 6}, DType::kF32);
    const Tensor y =
        GridAttention(qkv, bias, {.partition = partition, .num_heads = 1, .rows = 2, .columns = 3});
    std::set<int64_t> pixels;
    for (int64_t i = 0; i < y.numel(); ++i) {
      if (At(y, i) != 0) pixels.insert(i);
    }
    return pixels;
  };
  EXPECT_EQ(reached(Partition::kBlock, 8), (std::set<int64_t>{0, 1, 2, 6, 7, 8}));
  // Rows 1 and 3, columns 0, 2 and 4.
  EXPECT_EQ(reached(Partition::kGrid, 8), (std::set<int64_t>{6, 8, 10, 18, 20, 22}));
}

TEST(RelativePosition, ReadsTablesByKeyMinusQueryOrTheOppositeWay) {
  // One row of two columns: offsets -1, 0, 1.
  const Tensor table = Tensor::From<float>({1, 1, 3}, std::vector<float>{10, 20, 30});
  const auto bias = [&](RelativeTable kind) {
    const Shape shape = kind == RelativeTable::kKeyMinusQuery ? Shape({1, 1, 3}) : Shape({3, 1});
    return ToDouble(RelativePositionBias(table.Reshape(shape), {1, 1, 2, kind}));
  };
  EXPECT_EQ(bias(RelativeTable::kKeyMinusQuery), (std::vector<double>{20, 30, 10, 20}));
  EXPECT_EQ(bias(RelativeTable::kQueryMinusKey), (std::vector<double>{20, 10, 30, 20}));
}

TEST(RelativePosition, ResizingKeepsTheCentreAndRefusesWhatIsNoTable) {
  const Tensor table = RandomTensor({2, 13, 13}, DType::kF32, 1);
  for (const TableResize method : {TableResize::kUneven, TableResize::kBilinear}) {
    const auto larger = ResizeRelativeTable(table, {2, 23, 23}, method);
    ASSERT_TRUE(larger.has_value());
    for (int64_t h = 0; h < 2; ++h) {
      EXPECT_NEAR(At(*larger, (h * 23 + 11) * 23 + 11), At(table, (h * 13 + 6) * 13 + 6), 1e-6);
    }
    EXPECT_FALSE(ResizeRelativeTable(table, {3, 23, 23}, method).has_value());
    EXPECT_FALSE(ResizeRelativeTable(table, {2, 22, 23}, method).has_value());
    EXPECT_FALSE(ResizeRelativeTable(table.Reshape({26, 13}), {529, 13}, method).has_value());
    const Tensor flat = RandomTensor({25, 3}, DType::kF32, 2);
    EXPECT_EQ(ResizeRelativeTable(flat, {169, 3}, method)->shape(), Shape({169, 3}));
  }
}

TEST(GridAttentionDeathTest, WrongShapesAreNamed) {
  const Tensor qkv = Tensor::Zeros({1, 5, 6, 6}, DType::kF32);
  EXPECT_DEATH(GridAttention(qkv, Tensor::Zeros({1, 4, 4}, DType::kF32), {.rows = 2, .columns = 2}),
               "qkv f32\\[1, 5, 6, 6\\].*groups of 2 x 2");
}

}  // namespace
}  // namespace tessera
