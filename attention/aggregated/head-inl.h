// One head of one image of aggregated attention, a tile of queries at a time: what the forward and
// the backward kernel share. Queries of a tile are columns (columns-inl.h); the rows of its logits
// are the slots of the neighbourhood, then the pooled keys.
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_ATTENTION_AGGREGATED_HEAD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_AGGREGATED_HEAD_INL_H_
#undef TESSERA_ATTENTION_AGGREGATED_HEAD_INL_H_
#else
#define TESSERA_ATTENTION_AGGREGATED_HEAD_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "attention/aggregated/aggregated_kernel.h"
#include "attention/aggregated/columns-inl.h"
#include "attention/aggregated/neighbours-inl.h"
#include "attention/formats-inl.h"
#include "attention/small_product-inl.h"
#include "hwy/highway.h"
#include "tensor/simd-inl.h"
#include "tensor/tensor.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

// Sizes that follow from the shape. A row of the map is cut into vectors of positions, the last one
// padded; a tile is a number of them in a row, which may span rows of the map.
struct Geometry {
  explicit Geometry(const AggregatedAttentionShape& s)
      : shape(s),
        lanes(static_cast<int64_t>(hn::Lanes(FloatTag()))),
        d(s.head_dim),
        channels(s.channels()),
        slots(s.slots()),
        keys(s.slots() + s.num_pooled),
        row_vectors(RoundToVectors(s.width) / lanes),
        radius(s.window / 2),
        columns(kTileVectors * lanes),
        d_stride(RoundToVectors(s.head_dim)),
        d_rows((s.head_dim + 3) / 4 * 4) {
    const int64_t tile_rows = (kTileVectors + row_vectors - 2) / row_vectors + 1;
    rows = {.pad = RoundToVectors(radius),
            .width = row_vectors * lanes,
            .height = s.height,
            .capacity = tile_rows + 2 * radius};
  }

  static constexpr int64_t kTileVectors = 4;

  AggregatedAttentionShape shape;
  int64_t lanes;
  int64_t d, channels, slots, keys;
  int64_t row_vectors;
  int64_t radius;
  int64_t columns;   // of a tile
  int64_t d_stride;  // of rows of channels
  int64_t d_rows;    // rows of a tile of channels, as many as a transposition writes
  RowLayout rows;
};

// Consecutive vectors of positions, [begin, end) in the order of the map.
struct TileRange {
  int64_t begin, end;
};

// A vector of positions: (y, x) is its first, `n` lie inside of the map.
struct PositionVector {
  PositionVector(const Geometry& g, int64_t index)
      : y(index / g.row_vectors),
        x(index % g.row_vectors * g.lanes),
        n(std::min(g.lanes, g.shape.width - x)) {}
  int64_t y, x, n;
};

// Calls fn(vector, first column in the tile) for the vectors of a tile.
template <typename Fn>
HWY_INLINE void ForEachPositionVector(const Geometry& g, const TileRange& tile, const Fn& fn) {
  for (int64_t i = tile.begin; i < tile.end; ++i) {
    fn(PositionVector(g, i), (i - tile.begin) * g.lanes);
  }
}

// ln(keys that a query sees), for every position. Rows of the map differ only in how many rows of
// the neighbourhood lie inside.
class LengthScales {
 public:
  explicit LengthScales(const Geometry& g)
      : g_(g), scales_(Tensor::Empty({g.shape.window + 1, g.rows.width}, DType::kF32)) {
    const int64_t pooled = g.shape.num_pooled;
    for (int64_t rows = 0; rows <= g.shape.window; ++rows) {
      float* to = scales_.data<float>() + rows * g.rows.width;
      for (int64_t x = 0; x < g.rows.width; ++x) {
        const int64_t inside = x < g.shape.width ? rows * Inside(x, g.shape.width) : 0;
        to[x] = std::log(static_cast<float>(inside + pooled));
      }
    }
  }
  const float* At(int64_t y, int64_t x) const {
    return scales_.data<float>() + Inside(y, g_.shape.height) * g_.rows.width + x;
  }

 private:
  // How many of the window's places around `at` lie in [0, size).
  int64_t Inside(int64_t at, int64_t size) const {
    if (g_.shape.window == 0) return 0;
    return std::min(size - 1, at + g_.radius) - std::max<int64_t>(0, at - g_.radius) + 1;
  }

  const Geometry& g_;
  Tensor scales_;
};

// Memory of one head: tiles, and rows of keys.
struct HeadScratch {
  // take(n) hands out n floats.
  template <typename Take>
  HeadScratch(const Geometry& g, const Take& take)
      : pooled_k(take(g.shape.num_pooled * g.d_stride)),
        pooled_v(take(g.shape.num_pooled * g.d_stride)),
        pooled_inverses(take(g.shape.num_pooled)),
        staging(take(std::max(g.columns, g.rows.width) * g.d_stride)),
        key_rows(take(g.slots == 0 ? 0 : g.rows.floats(g.d_rows))),
        value_rows(take(g.slots == 0 ? 0 : g.rows.floats(g.d_rows))),
        key_inverses(take(g.rows.capacity * g.rows.width)),
        q_rows(take(g.columns * g.d_stride)),
        q_hat(take(g.d_rows * g.columns)),
        q_scaled(take(g.d_rows * g.columns)),
        q_inverses(take(g.columns)),
        lengths(take(g.columns)),
        p(take(g.keys * g.columns)),
        dynamic(take(g.slots * g.columns)),
        result(take(g.d_stride * g.columns)) {}

  float* pooled_k;  // [P, d_stride], normalised
  float* pooled_v;
  float* pooled_inverses;
  float* staging;     // rows of channels on their way to columns, and back
  float* key_rows;    // RowRing, normalised
  float* value_rows;  // RowRing
  float* key_inverses;
  float* q_rows;      // [columns, d_stride], as they came
  float* q_hat;       // [d_rows, columns], normalised
  float* q_scaled;    // the query that meets the keys
  float* q_inverses;  // [columns]
  float* lengths;     // [columns]
  float* p;           // [keys, columns]
  float* dynamic;     // [slots, columns]
  float* result;      // [d, columns]; rows up to d_stride for transposition
};

inline float Softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::abs(x))); }

template <typename T>
class Head {
 public:
  Head(const AggregatedAttentionArgs& args, const Geometry& g, const LengthScales& lengths,
       const HeadScratch& scratch, int64_t image, int64_t head)
      : args_(args),
        g_(g),
        lengths_(lengths),
        s_(scratch),
        head_(head),
        map_(image * g.shape.positions()),
        pooled_(image * g.shape.num_pooled * args.pooled_stride + head * g.d),
        softplus_(Softplus(args.temperature[head])),
        keys_(g.rows, g.slots == 0 ? 0 : g.d_rows, scratch.key_rows),
        values_(g.rows, g.slots == 0 ? 0 : g.d_rows, scratch.value_rows) {
    const int64_t pooled = g.shape.num_pooled;
    LoadRows(static_cast<const T*>(args.pooled_k) + pooled_, args.pooled_stride, pooled, pooled,
             g.d, s_.pooled_k);
    LoadRows(static_cast<const T*>(args.pooled_v) + pooled_, args.pooled_stride, pooled, pooled,
             g.d, s_.pooled_v);
    NormalizeRows(pooled, g.d_stride, s_.pooled_k, s_.pooled_inverses);
  }

  const RowRing& keys() const { return keys_; }
  const RowRing& values() const { return values_; }
  float softplus() const { return softplus_; }
  const float* query_embedding() const { return args_.query_embedding + head_ * g_.d; }
  const float* tokens() const { return args_.tokens + head_ * g_.d * g_.slots; }
  // Offset of the head's pooled rows in their tensors.
  int64_t pooled_offset() const { return pooled_; }
  // Offset of the head's channels of position (y, x) where rows are `stride` elements apart.
  int64_t Offset(int64_t y, int64_t x, int64_t stride) const {
    return (map_ + y * g_.shape.width + x) * stride + head_ * g_.d;
  }
  // Distance of the bias of pooled key j and query (y, x) from the start of the table.
  int64_t BiasOffset(int64_t j, int64_t y, int64_t x) const {
    const PositionBiasArgs& bias = args_.position_bias;
    return head_ * bias.head_stride + bias.key_offsets[j] + y * bias.row_stride + x;
  }

  // Brings rows [first, end) of keys and values into their rings.
  void LoadKeyRows(int64_t first, int64_t end) const {
    for (int64_t y = first; y < end; ++y) {
      LoadKeyRow(args_.k, y, keys_);
      LoadKeyRow(args_.v, y, values_);
      NormalizeColumns(g_.d, g_.rows.width, keys_.stride(), keys_.At(y), KeyInverses(y));
    }
  }
  float* KeyInverses(int64_t y) const {
    return s_.key_inverses + y % g_.rows.capacity * g_.rows.width;
  }

  // Rows of channels of the tile's positions to `rows`, and transposed to `to`.
  void LoadTile(const TileRange& tile, const void* from, int64_t stride, float* rows,
                float* to) const {
    ForEachPositionVector(g_, tile, [&](const PositionVector& v, int64_t column) {
      LoadRows(static_cast<const T*>(from) + Offset(v.y, v.x, stride), stride, v.n, g_.lanes, g_.d,
               rows + column * g_.d_stride);
    });
    TransposeTile(rows, Columns(tile), g_.d, g_.d_stride, to, g_.columns);
  }
  int64_t Columns(const TileRange& tile) const { return (tile.end - tile.begin) * g_.lanes; }

  // Everything up to the probabilities and the dynamic weights of the neighbours.
  void Attend(const TileRange& tile) const {
    LoadTile(tile, args_.q, args_.q_stride, s_.q_rows, s_.q_hat);
    NormalizeColumns(g_.d, Columns(tile), g_.columns, s_.q_hat, s_.q_inverses);
    ScaleQueries(tile);
    PooledLogits(tile);
    if (g_.slots > 0) LocalLogits(tile);
    SoftmaxColumns(g_.keys, Columns(tile), g_.columns, s_.p);
    if (g_.slots > 0) DynamicWeights(tile);
  }

  // Stores `result` as rows of channels of `to`.
  void StoreResult(const TileRange& tile, void* to, int64_t stride) const {
    TransposeTile(s_.result, g_.d, Columns(tile), g_.columns, s_.staging, g_.d_stride);
    ForEachPositionVector(g_, tile, [&](const PositionVector& v, int64_t column) {
      for (int64_t i = 0; i < v.n; ++i) {
        StoreRow(s_.staging + (column + i) * g_.d_stride, g_.d, 1.0f,
                 static_cast<T*>(to) + Offset(v.y, v.x + i, stride));
      }
    });
  }

 private:
  void LoadKeyRow(const void* from, int64_t y, const RowRing& ring) const {
    LoadRows(static_cast<const T*>(from) + Offset(y, 0, args_.kv_stride), args_.kv_stride,
             g_.shape.width, g_.rows.width, g_.d, s_.staging);
    TransposeTile(s_.staging, g_.rows.width, g_.d, g_.d_stride, ring.At(y), ring.stride());
  }

  void ScaleQueries(const TileRange& tile) const {
    const FloatTag df;
    const float* embedding = query_embedding();
    const FloatVec softplus = hn::Set(df, softplus_);
    ForEachPositionVector(g_, tile, [&](const PositionVector& v, int64_t column) HWY_ATTR {
      const FloatVec length = hn::LoadU(df, lengths_.At(v.y, v.x));
      hn::Store(length, df, s_.lengths + column);
      const FloatVec factor = hn::Mul(length, softplus);
      for (int64_t c = 0; c < g_.d; ++c) {
        const int64_t at = c * g_.columns + column;
        const FloatVec q = hn::Add(hn::Load(df, s_.q_hat + at), hn::Set(df, embedding[c]));
        hn::Store(hn::Mul(q, factor), df, s_.q_scaled + at);
      }
    });
  }

  void PooledLogits(const TileRange& tile) const {
    const FloatTag df;
    float* logits = s_.p + g_.slots * g_.columns;
    ForEachPositionVector(g_, tile, [&](const PositionVector& v, int64_t column) HWY_ATTR {
      const bool whole = v.n == g_.lanes;
      for (int64_t j = 0; j < g_.shape.num_pooled; ++j) {
        const float* bias = args_.position_bias.values + BiasOffset(j, v.y, v.x);
        const FloatVec b = whole ? hn::LoadU(df, bias) : LoadF32N(df, bias, v.n);
        hn::Store(b, df, logits + j * g_.columns + column);
      }
    });
    SmallProduct<Left::kPlain, FloatTiles>(g_.shape.num_pooled, Columns(tile), g_.d,
                                           {s_.pooled_k, g_.d_stride}, {s_.q_scaled, g_.columns},
                                           logits, g_.columns, /*accumulate=*/true);
  }

  void LocalLogits(const TileRange& tile) const {
    const FloatTag df;
    const float* bias = args_.local_bias + head_ * g_.slots;
    ForEachPositionVector(g_, tile, [&](const PositionVector& v, int64_t column) HWY_ATTR {
      DotNeighbours(s_.q_scaled + column, g_.columns, g_.d, {keys_, g_.shape.window, v.y, v.x},
                    s_.p + column);
      for (int64_t slot = 0; slot < g_.slots; ++slot) {
        float* logits = s_.p + slot * g_.columns + column;
        const FloatVec sum = hn::Add(hn::Load(df, logits), hn::Set(df, bias[slot]));
        hn::Store(hn::IfThenElse(InsideMap(v, slot), sum, hn::Set(df, kMaskedLogit)), df, logits);
      }
    });
  }

  // Lanes whose neighbour in this slot lies inside of the map.
  HWY_INLINE hn::Mask<FloatTag> InsideMap(const PositionVector& v, int64_t slot) const {
    const FloatTag df;
    const int64_t y = v.y + slot / g_.shape.window - g_.radius;
    const int64_t x = v.x + slot % g_.shape.window - g_.radius;
    const bool row_inside = y >= 0 && y < g_.shape.height;
    const int64_t end = row_inside ? std::clamp<int64_t>(g_.shape.width - x, 0, g_.lanes) : 0;
    const int64_t begin = std::clamp<int64_t>(-x, 0, g_.lanes);
    return hn::AndNot(hn::FirstN(df, static_cast<size_t>(begin)),
                      hn::FirstN(df, static_cast<size_t>(end)));
  }

  void DynamicWeights(const TileRange& tile) const {
    const FloatTag df;
    const float* bias = args_.token_bias + head_ * g_.slots;
    for (int64_t slot = 0; slot < g_.slots; ++slot) {
      for (int64_t column = 0; column < Columns(tile); column += g_.lanes) {
        hn::Store(hn::Set(df, bias[slot]), df, s_.dynamic + slot * g_.columns + column);
      }
    }
    SmallProduct<Left::kTransposed, FloatTiles>(g_.slots, Columns(tile), g_.d, {tokens(), g_.slots},
                                                {s_.q_hat, g_.columns}, s_.dynamic, g_.columns,
                                                /*accumulate=*/true);
  }

  const AggregatedAttentionArgs& args_;
  const Geometry& g_;
  const LengthScales& lengths_;
  const HeadScratch& s_;
  int64_t head_;
  int64_t map_;     // first token of the image
  int64_t pooled_;  // offset of its pooled rows
  float softplus_;
  RowRing keys_, values_;
};

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_ATTENTION_AGGREGATED_HEAD_INL_H_
