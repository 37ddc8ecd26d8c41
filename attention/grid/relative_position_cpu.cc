// Relative position bias on the CPU. Its tables are small: plain loops over runs of neighbouring
// keys.
#include <algorithm>

#include "attention/grid/relative_position_kernel.h"
#include "core/parallel.h"

namespace tessera {
namespace {

// Calls fn(element of the bias, element of the table) for all pairs of a head.
template <typename Fn>
void ForEachPair(const RelativePositionShape& s, int64_t head, const Fn& fn) {
  int64_t pair = head * s.tokens() * s.tokens();
  for (int64_t i = 0; i < s.rows; ++i) {
    for (int64_t j = 0; j < s.columns; ++j) {
      for (int64_t x = 0; x < s.rows; ++x) {
        for (int64_t y = 0; y < s.columns; ++y) {
          fn(pair++, s.Index(head, x - i + s.rows - 1, y - j + s.columns - 1));
        }
      }
    }
  }
}

void RelativePositionCpu(const RelativePositionArgs& args) {
  ParallelFor(args.shape.num_heads, 1, [&](int64_t head, int64_t) {
    ForEachPair(args.shape, head,
                [&](int64_t pair, int64_t entry) { args.bias[pair] = args.table[entry]; });
  });
}

void RelativePositionBackwardCpu(const RelativePositionGradArgs& args) {
  const RelativePositionShape& s = args.shape;
  if (!args.accumulate) {
    std::fill_n(args.d_table, s.num_heads * s.table_rows() * s.table_columns(), 0.0f);
  }
  ParallelFor(s.num_heads, 1, [&](int64_t head, int64_t) {
    ForEachPair(s, head,
                [&](int64_t pair, int64_t entry) { args.d_table[entry] += args.d_bias[pair]; });
  });
}

REGISTER_KERNEL(relative_position, Device::kCpu, RelativePositionCpu);
REGISTER_KERNEL(relative_position_backward, Device::kCpu, RelativePositionBackwardCpu);

}  // namespace
}  // namespace tessera
