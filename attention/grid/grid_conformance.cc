// Puts block and grid attention under the conformance tests: groups as large as divide the map, up
// to 7 x 7, each with one of the two orders of channels and of the two kinds of tables.
#include "attention/grid/grid.h"
#include "attention/grid/grid_ref.h"
#include "attention/registry.h"

namespace tessera {
namespace {

int64_t LargestDivisor(int64_t n) {
  for (int64_t divisor = 7; n > 0 && divisor > 1; --divisor) {
    if (n % divisor == 0) return divisor;
  }
  return 1;
}

AttentionProblem Problem(const AttentionSize& size, Partition partition, RelativeTable kind) {
  const GridAttentionShape shape = {.batch = size.batch,
                                    .height = size.height,
                                    .width = size.width,
                                    .num_heads = size.num_heads,
                                    .head_dim = size.head_dim,
                                    .rows = LargestDivisor(size.height),
                                    .columns = LargestDivisor(size.width),
                                    .partition = partition,
                                    .head_first = kind == RelativeTable::kQueryMinusKey};
  const RelativePositionShape table = {shape.num_heads, shape.rows, shape.columns, kind};
  const Shape table_shape =
      kind == RelativeTable::kKeyMinusQuery
          ? Shape({shape.num_heads, table.table_rows(), table.table_columns()})
          : Shape({table.table_rows() * table.table_columns(), shape.num_heads});
  return {
      .inputs =
          {{"qkv", {shape.batch, shape.height, shape.width, 3 * shape.channels()}, false, 2.0},
           {"table", table_shape, /*parameter=*/true}},
      .multiply_adds = 2.0 * shape.pairs(),
      .forward =
          [shape, table](const std::vector<Tensor>& in) {
            return GridAttention(in[0], RelativePositionBias(in[1], table),
                                 {.partition = shape.partition,
                                  .num_heads = shape.num_heads,
                                  .rows = shape.rows,
                                  .columns = shape.columns,
                                  .head_first = shape.head_first});
          },
      .reference = [shape, kind](const std::vector<const double*>& in,
                                 double* out) { GridAttentionRef(shape, kind, in[0], in[1], out); },
  };
}

AttentionProblem BlockProblem(const AttentionSize& size) {
  return Problem(size, Partition::kBlock, RelativeTable::kKeyMinusQuery);
}
AttentionProblem GridProblem(const AttentionSize& size) {
  return Problem(size, Partition::kGrid, RelativeTable::kQueryMinusKey);
}

REGISTER_ATTENTION(block, BlockProblem);
REGISTER_ATTENTION(grid, GridProblem);

}  // namespace
}  // namespace tessera
