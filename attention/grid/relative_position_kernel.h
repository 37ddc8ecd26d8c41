// Kernels of relative position bias: what runs on a device, on pointers and sizes. Formulas:
// relative_position.h.
#ifndef TESSERA_ATTENTION_GRID_RELATIVE_POSITION_KERNEL_H_
#define TESSERA_ATTENTION_GRID_RELATIVE_POSITION_KERNEL_H_

#include <cstdint>

#include "core/kernel.h"

namespace tessera {

// How a table of (2 rows - 1) x (2 columns - 1) offsets is stored and read.
enum class RelativeTable : uint8_t {
  kKeyMinusQuery,  // [heads, 2 rows - 1, 2 columns - 1], at key - query
  kQueryMinusKey,  // [(2 rows - 1) (2 columns - 1), heads], at query - key
};

struct RelativePositionShape {
  int64_t num_heads = 1;
  int64_t rows = 1;
  int64_t columns = 1;
  RelativeTable kind = RelativeTable::kKeyMinusQuery;

  constexpr int64_t tokens() const { return rows * columns; }
  constexpr int64_t table_rows() const { return 2 * rows - 1; }
  constexpr int64_t table_columns() const { return 2 * columns - 1; }
  // Element of the table for a head and key - query, each of its two parts counted from its least.
  constexpr int64_t Index(int64_t head, int64_t down, int64_t across) const {
    if (kind == RelativeTable::kKeyMinusQuery) {
      return (head * table_rows() + down) * table_columns() + across;
    }
    const int64_t mirrored =
        (table_rows() - 1 - down) * table_columns() + table_columns() - 1 - across;
    return mirrored * num_heads + head;
  }
};

struct RelativePositionArgs {
  RelativePositionShape shape;
  const float* table;
  float* bias;  // [num_heads, tokens, tokens]: query, then key
};
extern KernelSlot<void(const RelativePositionArgs&)> relative_position;

struct RelativePositionGradArgs {
  RelativePositionShape shape;
  const float* d_bias;
  float* d_table;
  bool accumulate;
};
extern KernelSlot<void(const RelativePositionGradArgs&)> relative_position_backward;

}  // namespace tessera

#endif  // TESSERA_ATTENTION_GRID_RELATIVE_POSITION_KERNEL_H_
