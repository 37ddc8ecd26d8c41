// Block and grid attention by plain loops in any float type: the truth that tests compare with. It
// follows the definition literally: pixels are in one group if they are in one window, or if they
// lie at the same place of their cells.
#ifndef TESSERA_ATTENTION_GRID_GRID_REF_H_
#define TESSERA_ATTENTION_GRID_GRID_REF_H_

#include <cmath>
#include <cstdint>
#include <vector>

#include "attention/grid/grid_kernel.h"
#include "attention/grid/relative_position_kernel.h"

namespace tessera {

// qkv [B, H, W, 3C], table as `kind` says -> out [B, H, W, C].
template <typename F>
void GridAttentionRef(const GridAttentionShape& s, RelativeTable kind, const F* qkv, const F* table,
                      F* out) {
  using std::exp, std::sqrt;
  const int64_t d = s.head_dim, cell_height = s.height / s.rows, cell_width = s.width / s.columns;
  struct Place {  // of a pixel: its group, and its position there
    int64_t group_row, group_column, row, column;
  };
  const auto place = [&](int64_t y, int64_t x) -> Place {
    if (s.partition == Partition::kBlock) {
      return {y / s.rows, x / s.columns, y % s.rows, x % s.columns};
    }
    return {y % cell_height, x % cell_width, y / cell_height, x / cell_width};
  };
  const auto part = [&](int64_t b, int64_t y, int64_t x, int64_t head, int64_t which) {
    const int64_t channel =
        s.head_first ? head * 3 * d + which * d : which * s.channels() + head * d;
    return qkv + ((b * s.height + y) * s.width + x) * 3 * s.channels() + channel;
  };
  const auto bias = [&](int64_t head, const Place& query, const Place& key) {
    const int64_t down = key.row - query.row, across = key.column - query.column;
    const int64_t width = 2 * s.columns - 1;
    if (kind == RelativeTable::kKeyMinusQuery) {
      return table[(head * (2 * s.rows - 1) + down + s.rows - 1) * width + across + s.columns - 1];
    }
    return table[((-down + s.rows - 1) * width - across + s.columns - 1) * s.num_heads + head];
  };
  for (int64_t pixel = 0; pixel < s.pixels(); ++pixel) {
    const int64_t b = pixel / (s.height * s.width);
    const int64_t y = pixel / s.width % s.height, x = pixel % s.width;
    const Place query = place(y, x);
    for (int64_t head = 0; head < s.num_heads; ++head) {
      const F* q = part(b, y, x, head, 0);
      std::vector<const F*> values;
      std::vector<F> logits;
      F max = -INFINITY;
      for (int64_t i = 0; i < s.height; ++i) {
        for (int64_t j = 0; j < s.width; ++j) {
          const Place key = place(i, j);
          if (key.group_row != query.group_row || key.group_column != query.group_column) continue;
          const F* k = part(b, i, j, head, 1);
          F dot = 0;
          for (int64_t c = 0; c < d; ++c) dot += q[c] * k[c];
          logits.push_back(dot / sqrt(static_cast<F>(d)) + bias(head, query, key));
          values.push_back(part(b, i, j, head, 2));
          if (logits.back() > max) max = logits.back();
        }
      }
      F sum = 0;
      for (F& logit : logits) sum += logit = exp(logit - max);
      for (int64_t c = 0; c < d; ++c) {
        F value = 0;
        for (size_t k = 0; k < values.size(); ++k) value += logits[k] / sum * values[k][c];
        out[pixel * s.channels() + head * d + c] = value;
      }
    }
  }
}

}  // namespace tessera

#endif  // TESSERA_ATTENTION_GRID_GRID_REF_H_
