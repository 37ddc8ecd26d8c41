// The gradient of one head of aggregated attention, a tile of queries at a time (head-inl.h).
// Gradients of keys and values are gathered, a row of the map at a time, once all queries that see
// the row are done: rings keep what those left behind.
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_ATTENTION_AGGREGATED_GRADIENT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_AGGREGATED_GRADIENT_INL_H_
#undef TESSERA_ATTENTION_AGGREGATED_GRADIENT_INL_H_
#else
#define TESSERA_ATTENTION_AGGREGATED_GRADIENT_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "attention/aggregated/head-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

// Memory beside that of HeadScratch.
struct GradScratch {
  template <typename Take>
  GradScratch(const Geometry& g, const Take& take)
      : embedding(take(g.d_stride)),
        q_hat_rows(take(g.columns * g.d_stride)),
        q_scaled_rows(take(g.columns * g.d_stride)),
        d_out_rows(take(g.columns * g.d_stride)),
        d_out(take(g.d_rows * g.columns)),
        d_p(take(g.keys * g.columns)),
        d_scaled(take(g.d_rows * g.columns)),
        d_pooled_k(take(g.shape.num_pooled * g.d_stride)),
        d_pooled_v(take(g.shape.num_pooled * g.d_stride)),
        d_key_row(take(g.slots == 0 ? 0 : g.d_stride * g.rows.width)),
        q_ring(take(g.slots == 0 ? 0 : g.rows.floats(g.d))),
        d_out_ring(take(g.slots == 0 ? 0 : g.rows.floats(g.d))),
        d_logit_ring(take(g.rows.floats(g.slots))),
        weight_ring(take(g.rows.floats(g.slots))),
        d_embedding(take(g.d * g.lanes)),
        d_temperature(take(g.lanes)),
        d_local_bias(take(g.slots * g.lanes)),
        d_token_bias(take(g.slots * g.lanes)),
        d_tokens(take(g.slots * g.d_stride)) {}

  float* embedding;      // padded to whole vectors
  float* q_hat_rows;     // [columns, d_stride]
  float* q_scaled_rows;  // [columns, d_stride]
  float* d_out_rows;     // [columns, d_stride]
  float* d_out;          // [d_rows, columns]
  float* d_p;            // [keys, columns], then of the logits
  float* d_scaled;       // [d, columns]
  float* d_pooled_k;     // [P, d_stride]
  float* d_pooled_v;
  float* d_key_row;  // [d, width]; rows up to d_stride for transposition
  float* q_ring;
  float* d_out_ring;
  float* d_logit_ring;
  float* weight_ring;
  // Sums over queries, one per lane.
  float* d_embedding;    // [d, lanes]
  float* d_temperature;  // [lanes], before the derivative of softplus
  float* d_local_bias;   // [slots, lanes]
  float* d_token_bias;   // [slots, lanes]
  float* d_tokens;       // [slots, d_stride]
};

// Where a head's sums for the parameters go, overwritten except for the table, which is added to.
struct ParameterSums {
  float* position_bias;    // [head_stride]
  float* query_embedding;  // [d]
  float* temperature;      // [1]
  float* local_bias;       // [L]
  float* tokens;           // [d, L]
  float* token_bias;       // [L]
};

// Gradients of one head, of one image after another.
template <typename T>
class HeadGradient {
 public:
  HeadGradient(const AggregatedAttentionGradArgs& args, const Geometry& g, const HeadScratch& head,
               const GradScratch& scratch, int64_t head_index, float* d_position_bias)
      : args_(args),
        g_(g),
        h_(head),
        s_(scratch),
        head_index_(head_index),
        d_position_bias_(d_position_bias) {
    std::fill_n(s_.d_embedding, g.d * g.lanes, 0.0f);
    std::fill_n(s_.d_temperature, g.lanes, 0.0f);
    std::fill_n(s_.d_local_bias, g.slots * g.lanes, 0.0f);
    std::fill_n(s_.d_token_bias, g.slots * g.lanes, 0.0f);
    std::fill_n(s_.d_tokens, g.slots * g.d_stride, 0.0f);
    std::fill_n(h_.result, g.d_stride * g.columns, 0.0f);
    if (g.slots > 0) std::fill_n(s_.d_key_row, g.d_stride * g.rows.width, 0.0f);
    LoadRow(args.forward.query_embedding + head_index * g.d, g.d, g.d_stride, 1.0f, s_.embedding);
  }

  void Image(int64_t image, const LengthScales& lengths) const {
    const Head<T> head(args_.forward, g_, lengths, h_, image, head_index_);
    const Rings rings(g_, s_);
    const int64_t pooled = g_.shape.num_pooled, vectors = g_.shape.height * g_.row_vectors;
    std::fill_n(s_.d_pooled_k, pooled * g_.d_stride, 0.0f);
    std::fill_n(s_.d_pooled_v, pooled * g_.d_stride, 0.0f);
    int64_t loaded = 0, finished = 0;  // rows of keys
    for (int64_t begin = 0; begin < vectors; begin += Geometry::kTileVectors) {
      const TileRange tile = {begin, std::min(vectors, begin + Geometry::kTileVectors)};
      if (g_.slots > 0) {
        const int64_t last = (tile.end - 1) / g_.row_vectors;
        const int64_t wanted = std::min(g_.shape.height, last + g_.radius + 1);
        head.LoadKeyRows(loaded, wanted);
        loaded = wanted;
      }
      head.Attend(tile);
      QueriesAsRows(head, tile);
      head.LoadTile(tile, args_.d_out, g_.channels, s_.d_out_rows, s_.d_out);
      ProbabilityGradients(head, tile);
      PooledGradients(tile);
      if (g_.slots > 0) KeepQueries(rings, tile);
      QueryGradients(head, tile);
      if (g_.slots == 0) continue;
      const int64_t complete = tile.end == vectors
                                   ? g_.shape.height
                                   : std::max<int64_t>(0, tile.end / g_.row_vectors - g_.radius);
      for (; finished < complete; ++finished) FinishKeyRow(head, rings, finished);
    }
    StorePooledGradients(head);
  }

  // After all images.
  void SumParameters(const ParameterSums& to) const {
    const FloatTag df;
    const float temperature = args_.forward.temperature[head_index_];
    const float softplus = Softplus(temperature);
    for (int64_t c = 0; c < g_.d; ++c) {
      to.query_embedding[c] = softplus * SumF32(df, hn::Load(df, s_.d_embedding + c * g_.lanes));
    }
    to.temperature[0] =
        SumF32(df, hn::Load(df, s_.d_temperature)) / (1.0f + std::exp(-temperature));
    for (int64_t slot = 0; slot < g_.slots; ++slot) {
      to.local_bias[slot] = SumF32(df, hn::Load(df, s_.d_local_bias + slot * g_.lanes));
      to.token_bias[slot] = SumF32(df, hn::Load(df, s_.d_token_bias + slot * g_.lanes));
      for (int64_t c = 0; c < g_.d; ++c) {
        to.tokens[c * g_.slots + slot] = s_.d_tokens[slot * g_.d_stride + c];
      }
    }
  }

 private:
  // What queries leave behind for the keys around them.
  struct Rings {
    Rings(const Geometry& g, const GradScratch& s)
        : q_scaled(g.rows, g.slots == 0 ? 0 : g.d, s.q_ring),
          d_out(g.rows, g.slots == 0 ? 0 : g.d, s.d_out_ring),
          d_logits(g.rows, g.slots, s.d_logit_ring),
          weights(g.rows, g.slots, s.weight_ring) {}
    RowRing q_scaled, d_out, d_logits, weights;
  };

  // Normalised and scaled queries as rows of channels, for sums over queries.
  void QueriesAsRows(const Head<T>& head, const TileRange& tile) const {
    const FloatTag df;
    for (int64_t i = 0; i < head.Columns(tile); ++i) {
      const FloatVec inverse = hn::Set(df, h_.q_inverses[i]);
      const FloatVec factor = hn::Set(df, head.softplus() * h_.lengths[i]);
      for (int64_t c = 0; c < g_.d_stride; c += g_.lanes) {
        const int64_t at = i * g_.d_stride + c;
        const FloatVec q_hat = hn::Mul(hn::Load(df, h_.q_rows + at), inverse);
        hn::Store(q_hat, df, s_.q_hat_rows + at);
        const FloatVec q = hn::Add(q_hat, hn::Load(df, s_.embedding + c));
        hn::Store(hn::Mul(q, factor), df, s_.q_scaled_rows + at);
      }
    }
  }

  // d_p: the gradient of all weights of values, those of the dynamic ones handed on, then of the
  // logits.
  void ProbabilityGradients(const Head<T>& head, const TileRange& tile) const {
    const int64_t columns = head.Columns(tile);
    SmallProduct<Left::kPlain, FloatTiles>(g_.shape.num_pooled, columns, g_.d,
                                           {h_.pooled_v, g_.d_stride}, {s_.d_out, g_.columns},
                                           s_.d_p + g_.slots * g_.columns, g_.columns, false);
    if (g_.slots > 0) {
      ForEachPositionVector(g_, tile, [&](const PositionVector& v, int64_t column) HWY_ATTR {
        DotNeighbours(s_.d_out + column, g_.columns, g_.d,
                      {head.values(), g_.shape.window, v.y, v.x}, s_.d_p + column);
      });
      SumSlots(columns, s_.d_token_bias);
      SmallProduct<Left::kPlain, FloatTiles>(g_.slots, g_.d, columns, {s_.d_p, g_.columns},
                                             {s_.q_hat_rows, g_.d_stride}, s_.d_tokens, g_.d_stride,
                                             true);
      SmallProduct<Left::kPlain, FloatTiles>(g_.d, columns, g_.slots, {head.tokens(), g_.slots},
                                             {s_.d_p, g_.columns}, h_.result, g_.columns, false);
    } else {
      std::fill_n(h_.result, g_.d * g_.columns, 0.0f);
    }
    SoftmaxColumnsBackward(g_.keys, columns, g_.columns, h_.p, s_.d_p);
    SumSlots(columns, s_.d_local_bias);
  }

  // sums[slot] += the columns of d_p.
  void SumSlots(int64_t columns, float* sums) const {
    const FloatTag df;
    for (int64_t slot = 0; slot < g_.slots; ++slot) {
      FloatVec sum = hn::Load(df, sums + slot * g_.lanes);
      for (int64_t column = 0; column < columns; column += g_.lanes) {
        sum = hn::Add(sum, hn::Load(df, s_.d_p + slot * g_.columns + column));
      }
      hn::Store(sum, df, sums + slot * g_.lanes);
    }
  }

  void PooledGradients(const TileRange& tile) const {
    const FloatTag df;
    const PositionBiasArgs& bias = args_.forward.position_bias;
    const int64_t pooled = g_.shape.num_pooled, columns = (tile.end - tile.begin) * g_.lanes;
    const float* d_logits = s_.d_p + g_.slots * g_.columns;
    ForEachPositionVector(g_, tile, [&](const PositionVector& v, int64_t column) HWY_ATTR {
      for (int64_t j = 0; j < pooled; ++j) {
        float* to = d_position_bias_ + bias.key_offsets[j] + v.y * bias.row_stride + v.x;
        const FloatVec d = hn::Load(df, d_logits + j * g_.columns + column);
        if (v.n == g_.lanes) {
          hn::StoreU(hn::Add(hn::LoadU(df, to), d), df, to);
        } else {
          StoreF32N(hn::Add(LoadF32N(df, to, v.n), d), df, to, v.n);
        }
      }
    });
    SmallProduct<Left::kPlain, FloatTiles>(pooled, g_.d, columns, {d_logits, g_.columns},
                                           {s_.q_scaled_rows, g_.d_stride}, s_.d_pooled_k,
                                           g_.d_stride, true);
    SmallProduct<Left::kPlain, FloatTiles>(
        pooled, g_.d, columns, {h_.p + g_.slots * g_.columns, g_.columns},
        {s_.d_out_rows, g_.d_stride}, s_.d_pooled_v, g_.d_stride, true);
    SmallProduct<Left::kTransposed, FloatTiles>(g_.d, columns, pooled, {h_.pooled_k, g_.d_stride},
                                                {d_logits, g_.columns}, s_.d_scaled, g_.columns,
                                                false);
  }

  void QueryGradients(const Head<T>& head, const TileRange& tile) const {
    const FloatTag df;
    const FloatVec softplus = hn::Set(df, head.softplus());
    ForEachPositionVector(g_, tile, [&](const PositionVector& v, int64_t column) HWY_ATTR {
      if (g_.slots > 0) {
        CombineNeighbours(
            Neighbours<false>{head.keys(), g_.shape.window, v.y, v.x}, g_.d,
            [&](int64_t slot, int64_t, int64_t)
                HWY_ATTR { return hn::Load(df, s_.d_p + slot * g_.columns + column); },
            s_.d_scaled + column, g_.columns);
      }
      const FloatVec length = hn::Load(df, h_.lengths + column);
      FloatVec d_temperature = hn::Load(df, s_.d_temperature);
      for (int64_t c = 0; c < g_.d; ++c) {
        const int64_t at = c * g_.columns + column;
        const FloatVec d = hn::Mul(hn::Load(df, s_.d_scaled + at), length);
        const FloatVec q = hn::Add(hn::Load(df, h_.q_hat + at), hn::Set(df, s_.embedding[c]));
        float* d_embedding = s_.d_embedding + c * g_.lanes;
        d_temperature = hn::MulAdd(d, q, d_temperature);
        hn::Store(hn::Add(hn::Load(df, d_embedding), d), df, d_embedding);
        hn::Store(hn::MulAdd(d, softplus, hn::Load(df, h_.result + at)), df, h_.result + at);
      }
      hn::Store(d_temperature, df, s_.d_temperature);
    });
    NormalizeColumnsBackward(g_.d, head.Columns(tile), g_.columns, h_.q_hat, g_.columns,
                             h_.q_inverses, h_.result);
    head.StoreResult(tile, args_.d_q, args_.forward.q_stride);
  }

  void KeepQueries(const Rings& rings, const TileRange& tile) const {
    const FloatTag df;
    ForEachPositionVector(g_, tile, [&](const PositionVector& v, int64_t column) HWY_ATTR {
      float* q = rings.q_scaled.At(v.y) + v.x;
      float* d_out = rings.d_out.At(v.y) + v.x;
      for (int64_t c = 0; c < g_.d; ++c) {
        const int64_t to = c * g_.rows.stride(), from = c * g_.columns + column;
        hn::Store(hn::Load(df, h_.q_scaled + from), df, q + to);
        hn::Store(hn::Load(df, s_.d_out + from), df, d_out + to);
      }
      float* d_logits = rings.d_logits.At(v.y) + v.x;
      float* weights = rings.weights.At(v.y) + v.x;
      for (int64_t slot = 0; slot < g_.slots; ++slot) {
        const int64_t to = slot * g_.rows.stride(), from = slot * g_.columns + column;
        hn::Store(hn::Load(df, s_.d_p + from), df, d_logits + to);
        hn::Store(hn::Add(hn::Load(df, h_.p + from), hn::Load(df, h_.dynamic + from)), df,
                  weights + to);
      }
    });
  }

  // Gradients of row y of keys and values, from the queries around them.
  void FinishKeyRow(const Head<T>& head, const Rings& rings, int64_t y) const {
    GatherKeyRow(rings.q_scaled, rings.d_logits, y);
    NormalizeColumnsBackward(g_.d, g_.rows.width, g_.rows.width, head.keys().At(y),
                             g_.rows.stride(), head.KeyInverses(y), s_.d_key_row);
    StoreKeyRow(head, y, args_.d_k);
    GatherKeyRow(rings.d_out, rings.weights, y);
    StoreKeyRow(head, y, args_.d_v);
  }

  // d_key_row = the sum over queries that see a key of their weight for it times their row.
  void GatherKeyRow(const RowRing& queries, const RowRing& weights, int64_t y) const {
    const FloatTag df;
    std::fill_n(s_.d_key_row, g_.d * g_.rows.width, 0.0f);
    for (int64_t x = 0; x < g_.rows.width; x += g_.lanes) {
      const Neighbours<true> neighbours{queries, g_.shape.window, y, x};
      CombineNeighbours(
          neighbours, g_.d,
          [&](int64_t slot, int64_t i, int64_t j) HWY_ATTR {
            return hn::LoadU(df, neighbours.At(weights, i, j) + slot * g_.rows.stride());
          },
          s_.d_key_row + x, g_.rows.width);
    }
  }

  void StoreKeyRow(const Head<T>& head, int64_t y, void* to) const {
    TransposeTile(s_.d_key_row, g_.d, g_.rows.width, g_.rows.width, h_.staging, g_.d_stride);
    for (int64_t x = 0; x < g_.shape.width; ++x) {
      StoreRow(h_.staging + x * g_.d_stride, g_.d, 1.0f,
               static_cast<T*>(to) + head.Offset(y, x, args_.forward.kv_stride));
    }
  }

  void StorePooledGradients(const Head<T>& head) const {
    const int64_t pooled = g_.shape.num_pooled;
    NormalizeRowsBackward(pooled, g_.d_stride, h_.pooled_k, h_.pooled_inverses, s_.d_pooled_k);
    T* d_k = static_cast<T*>(args_.d_pooled_k) + head.pooled_offset();
    T* d_v = static_cast<T*>(args_.d_pooled_v) + head.pooled_offset();
    for (int64_t j = 0; j < pooled; ++j) {
      const int64_t to = j * args_.forward.pooled_stride;
      StoreRow(s_.d_pooled_k + j * g_.d_stride, g_.d, 1.0f, d_k + to);
      StoreRow(s_.d_pooled_v + j * g_.d_stride, g_.d, 1.0f, d_v + to);
    }
  }

  const AggregatedAttentionGradArgs& args_;
  const Geometry& g_;
  const HeadScratch& h_;
  const GradScratch& s_;
  int64_t head_index_;
  float* d_position_bias_;
};

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_ATTENTION_AGGREGATED_GRADIENT_INL_H_
