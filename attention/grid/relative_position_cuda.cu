// Relative position bias on GPUs: a thread gathers an element of the bias, or adds up all pairs of
// tokens of an entry of the table, in their order.
#include "attention/grid/relative_position_kernel.h"
#include "core/cuda/elementwise.h"

namespace tessera {
namespace {

// The sizes of RelativePositionShape as the kernels need them.
struct Table {
  explicit Table(const RelativePositionShape& s)
      : rows(s.rows),
        columns(s.columns),
        tokens(s.tokens()),
        table_columns(s.table_columns()),
        entries(s.table_rows() * s.table_columns()),
        origin(s.Index(0, 0, 0)),
        head_step(s.Index(1, 0, 0) - origin),
        down_step(s.Index(0, 1, 0) - origin),
        across_step(s.Index(0, 0, 1) - origin) {}
  DEVICE int64_t Index(int64_t head, int64_t down, int64_t across) const {
    return origin + head * head_step + down * down_step + across * across_step;
  }

  int64_t rows, columns, tokens, table_columns, entries;
  int64_t origin, head_step, down_step, across_step;
};

struct Gather {
  Table of;
  const float* table;
  float* bias;

  template <int kCount>
  DEVICE void Run(int64_t first) const {
    UNROLL for (int j = 0; j < kCount; ++j) {
      const int64_t i = first + j, n = of.tokens;
      const int64_t head = i / (n * n), query = i / n % n, key = i % n;
      const int64_t down = key / of.columns - query / of.columns + of.rows - 1;
      const int64_t across = key % of.columns - query % of.columns + of.columns - 1;
      bias[i] = table[of.Index(head, down, across)];
    }
  }
};

struct Scatter {
  Table of;
  const float* d_bias;
  float* d_table;
  bool accumulate;

  // Element i counts heads, then key - query in rows, then in columns.
  template <int kCount>
  DEVICE void Run(int64_t first) const {
    UNROLL for (int j = 0; j < kCount; ++j) {
      const int64_t i = first + j, head = i / of.entries;
      const int64_t down = i % of.entries / of.table_columns, across = i % of.table_columns;
      float* to = d_table + of.Index(head, down, across);
      const float sum = Sum(head, down - of.rows + 1, across - of.columns + 1);
      *to = accumulate ? *to + sum : sum;
    }
  }
  DEVICE float Sum(int64_t head, int64_t down, int64_t across) const {
    float sum = 0;
    for (int64_t row = 0; row < of.rows; ++row) {
      if (row + down < 0 || row + down >= of.rows) continue;
      for (int64_t column = 0; column < of.columns; ++column) {
        if (column + across < 0 || column + across >= of.columns) continue;
        const int64_t query = row * of.columns + column;
        const int64_t key = (row + down) * of.columns + column + across;
        sum += d_bias[(head * of.tokens + query) * of.tokens + key];
      }
    }
    return sum;
  }
};

void RelativePositionCuda(const RelativePositionArgs& args) {
  const RelativePositionShape& s = args.shape;
  LaunchElementwise(Gather{Table(s), args.table, args.bias}, s.num_heads * s.tokens() * s.tokens(),
                    /*aligned=*/false);
}

void RelativePositionBackwardCuda(const RelativePositionGradArgs& args) {
  const RelativePositionShape& s = args.shape;
  LaunchElementwise(Scatter{Table(s), args.d_bias, args.d_table, args.accumulate},
                    s.num_heads * s.table_rows() * s.table_columns(), /*aligned=*/false);
}

REGISTER_CUDA_KERNEL(relative_position, RelativePositionCuda);
REGISTER_CUDA_KERNEL(relative_position_backward, RelativePositionBackwardCuda);

}  // namespace
}  // namespace tessera
