// Softmax attention of one head inside one tile: a list of tokens that all attend to each other (a
// window, a grid cell, a neighbourhood). Logits exist only as a block of rows that fits into L1;
// the backward pass recomputes them, so nothing is saved between the passes.
//
// A mechanism supplies the addressing: the indices of the tile's tokens. Rows are read from and
// written to the strided memory of the qkv projection, f32 or bf16, and become f32 tiles here.
//
// Included by kernels once per instruction set (Highway's foreach_target).

#if defined(TESSERA_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_ATTENTION_TILE_INL_H_
#undef TESSERA_ATTENTION_TILE_INL_H_
#else
#define TESSERA_ATTENTION_TILE_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "attention/formats-inl.h"
#include "attention/rows-inl.h"
#include "attention/scratch.h"
#include "attention/small_product-inl.h"
#include "attention/softmax-inl.h"
#include "hwy/highway.h"
#include "tensor/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::HWY_NAMESPACE {

// Tokens of a tile for one head. `q`, `k` and `v` point at the head's first channel of token 0;
// token t is at pointer + t * stride.
template <typename T>
struct TileInput {
  const int64_t* tokens;  // indices of the tile's tokens
  int64_t num_tokens;
  int64_t head_dim;
  const T* q;
  const T* k;
  const T* v;
  int64_t stride;  // in elements
  // Where the head's first channel of token 0 lies in the output and its gradient, and how far
  // apart their tokens are.
  int64_t out_offset;
  int64_t out_stride;
  float scale;  // of the logits
  // Added to the logits, divided by the scale: [num_tokens, RoundToVectors(num_keys())], or null.
  const float* bias = nullptr;
  // `constant_count` more keys share the key and value given here (null: zeros), as padded
  // positions do. Being equal they are one column of logits with log(constant_count) added.
  int64_t constant_count = 0;
  const float* constant_k = nullptr;
  const float* constant_v = nullptr;
  // The tile that will be worked on after this one, or null.
  const TileInput* next = nullptr;

  int64_t num_keys() const { return num_tokens + (constant_count > 0 ? 1 : 0); }
};

// Sizes of the tiles in memory.
struct TileSizes {
  explicit TileSizes(int64_t num_tokens, int64_t num_keys, int64_t head_dim)
      : head_stride(RoundToVectors(head_dim)), key_stride(RoundToVectors(num_keys)) {
    // A block of logits takes at most 12 KiB of a 32 KiB L1, but is high enough for the products to
    // run well.
    constexpr int64_t kLogitFloats = 12 * 1024 / sizeof(float);
    const int64_t most_rows = std::max<int64_t>(12, kLogitFloats / key_stride);
    num_blocks = (num_tokens + most_rows - 1) / most_rows;
    block_rows = (num_tokens + num_blocks - 1) / num_blocks;
  }
  int64_t head_stride;  // of [token, head_dim] tiles
  int64_t key_stride;  // of [.., key] tiles; also the rows of key tiles, since these are transposed
                       // in whole vectors
  int64_t num_blocks;  // of query rows
  int64_t block_rows;

  int64_t key_tile() const { return key_stride * head_stride; }
};

// Rows of the tile's tokens into `to` [num_tokens, Format::Stride(head_dim)].
template <class Format, typename T>
void LoadTokens(const TileInput<T>& in, const T* from, int64_t from_stride, float* to) {
  const int64_t stride = Format::Stride(in.head_dim);
  for (int64_t i = 0; i < in.num_tokens; ++i) {
    Format::Load(from + in.tokens[i] * from_stride, in.head_dim, to + i * stride);
  }
}

// Keys or values into `to` [key_stride, Format::Stride(head_dim)]: tokens, the constant one, and
// zero rows.
template <class Format, typename T>
void LoadKeys(const TileInput<T>& in, const TileSizes& sizes, const T* from, const float* constant,
              float* to) {
  const int64_t stride = Format::Stride(in.head_dim);
  LoadTokens<Format>(in, from, in.stride, to);
  float* rest = to + in.num_tokens * stride;
  std::fill(rest, to + sizes.key_stride * stride, 0.0f);
  if (in.constant_count > 0 && constant != nullptr) Format::Load(constant, in.head_dim, rest);
}

// Logits of `rows` queries from `begin` on, not yet scaled: the bias and the products with the
// keys.
template <class Format, typename T>
void Logits(const TileInput<T>& in, const TileSizes& sizes, int64_t begin, int64_t rows,
            const Factor& q, const Factor& k_transposed, float* logits) {
  const bool has_bias = in.bias != nullptr;
  if (has_bias) {
    const float* bias = in.bias + begin * sizes.key_stride;
    std::copy(bias, bias + rows * sizes.key_stride, logits);
  }
  SmallProduct<Left::kPlain, Format>(rows, in.num_keys(), Format::Depth(in.head_dim), q.Row(begin),
                                     k_transposed, logits, sizes.key_stride, has_bias);
}

// Logits, not yet scaled, to exponentials, not yet divided by the sums: inverse_sums[i] is 1 / sum
// of row i.
template <typename T>
void ExpLogits(const TileInput<T>& in, const TileSizes& sizes, int64_t rows, float* logits,
               float* inverse_sums) {
  const float scale = in.scale * kLog2E;
  if (in.constant_count > 0) {
    const float log_count = std::log2(static_cast<float>(in.constant_count)) / scale;
    for (int64_t i = 0; i < rows; ++i) logits[i * sizes.key_stride + in.num_tokens] += log_count;
  }
  Exp2Rows(rows, in.num_keys(), sizes.key_stride, scale, logits, inverse_sums);
}

// Asks L2 for the rows of the tile that comes next, some at a time between other work: they lie far
// apart, which no hardware prefetcher follows, and a processor waits for some tens of lines at
// once.
template <typename T>
class NextTile {
 public:
  explicit NextTile(const TileInput<T>* next, const T* d_out = nullptr)
      : next_(next), d_out_(d_out) {}

  // Asks for 1 / kSteps of the rows.
  void Prefetch() {
    if (next_ == nullptr) return;
    const int64_t end = std::min(next_->num_tokens, done_ + next_->num_tokens / kSteps + 1);
    for (; done_ < end; ++done_) {
      const int64_t token = next_->tokens[done_];
      const int64_t row = token * next_->stride;
      PrefetchRow(next_->q + row);
      PrefetchRow(next_->k + row);
      PrefetchRow(next_->v + row);
      if (d_out_ != nullptr) PrefetchRow(d_out_ + next_->out_offset + token * next_->out_stride);
    }
  }

 private:
  static constexpr int64_t kSteps = 8;
  void PrefetchRow(const T* row) const {
    constexpr int64_t kLineElements = 64 / sizeof(T);
    for (int64_t c = 0; c < next_->head_dim; c += kLineElements) {
      __builtin_prefetch(row + c, 0, 2);
    }
  }
  const TileInput<T>* next_;
  const T* d_out_;
  int64_t done_ = 0;
};

template <class Format, typename T>
void TileForwardIn(const TileInput<T>& in, T* out) {
  const TileSizes sizes(in.num_tokens, in.num_keys(), in.head_dim);
  const int64_t d = in.head_dim, keys = in.num_keys(), row_stride = Format::Stride(d);
  const int64_t hs = sizes.head_stride, ks = sizes.key_stride;
  ScratchFloats scratch(5 * sizes.key_tile() + sizes.block_rows * (ks + hs + 16));
  float* k_transposed = scratch.Take(sizes.key_tile());
  float* rows_of_keys = scratch.Take(sizes.key_tile());
  float* v_along_rows = scratch.Take(sizes.key_tile());
  float* q = scratch.Take(sizes.key_tile());
  float* exps = scratch.Take(sizes.block_rows * ks);
  float* block_out = scratch.Take(sizes.block_rows * hs);
  float* inverse_sums = scratch.Take(sizes.block_rows);

  NextTile<T> next(in.next);
  LoadKeys<Format>(in, sizes, in.k, in.constant_k, rows_of_keys);
  next.Prefetch();
  TransposeTile(rows_of_keys, keys, Format::Depth(d), row_stride, k_transposed, ks);
  next.Prefetch();
  LoadKeys<Format>(in, sizes, in.v, in.constant_v, rows_of_keys);
  const Factor v = Format::AlongRows(rows_of_keys, keys, d, v_along_rows);
  next.Prefetch();
  LoadTokens<Format>(in, in.q, in.stride, q);
  next.Prefetch();
  for (int64_t begin = 0; begin < in.num_tokens; begin += sizes.block_rows) {
    const int64_t rows = std::min(sizes.block_rows, in.num_tokens - begin);
    Logits<Format>(in, sizes, begin, rows, {q, row_stride}, {k_transposed, ks}, exps);
    next.Prefetch();
    ExpLogits(in, sizes, rows, exps, inverse_sums);
    next.Prefetch();
    SmallProduct<Left::kPlain, Format>(rows, d, Format::Depth(keys),
                                       Format::FromFloats(exps, rows, ks), v, block_out, hs, false);
    next.Prefetch();
    for (int64_t i = 0; i < rows; ++i) {
      StoreRow(block_out + i * hs, d, inverse_sums[i],
               out + in.out_offset + in.tokens[begin + i] * in.out_stride);
    }
  }
}

// out = softmax(scale * q k^T + bias) v for the tile's tokens.
template <typename T>
void TileForward(const TileInput<T>& in, T* out) {
  WithTileFormat<T>([&](auto format) HWY_ATTR { TileForwardIn<decltype(format)>(in, out); });
}

// Where the gradients of a tile go. dq, dk, dv are laid out as q, k, v; d_constant_k, d_constant_v
// [head_dim] get the gradients of the constant key and value, summed over its count, and are not
// touched when there is none.
template <typename T>
struct TileGradient {
  const T* d_out;
  T* dq;
  T* dk;
  T* dv;
  float* d_constant_k = nullptr;
  float* d_constant_v = nullptr;
  // Gets the gradients of the scaled logits added; laid out as the bias, or null.
  float* d_bias = nullptr;
};

// sums[0, n) += values[0, n), whole vectors.
inline void AddVectors(const float* HWY_RESTRICT values, int64_t n, float* HWY_RESTRICT sums) {
  const FloatTag df;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(df));
  for (int64_t i = 0; i < n; i += lanes) {
    hn::StoreU(hn::Add(hn::LoadU(df, sums + i), hn::LoadU(df, values + i)), df, sums + i);
  }
}

template <typename T>
void StoreKeyGradients(const TileInput<T>& in, const TileSizes& sizes, const float* from,
                       float factor, T* to, float* constant) {
  for (int64_t i = 0; i < in.num_tokens; ++i) {
    StoreRow(from + i * sizes.head_stride, in.head_dim, factor, to + in.tokens[i] * in.stride);
  }
  if (in.constant_count > 0)
    StoreRow(from + in.num_tokens * sizes.head_stride, in.head_dim, factor, constant);
}

template <class Format, typename T>
void TileBackwardIn(const TileInput<T>& in, const TileGradient<T>& grad) {
  const TileSizes sizes(in.num_tokens, in.num_keys(), in.head_dim);
  const int64_t d = in.head_dim, keys = in.num_keys(), row_stride = Format::Stride(d);
  const int64_t hs = sizes.head_stride, ks = sizes.key_stride, block = sizes.block_rows;
  ScratchFloats scratch(8 * sizes.key_tile() + block * (4 * ks + 3 * hs + 16));
  float* k_transposed = scratch.Take(sizes.key_tile());
  float* v_transposed = scratch.Take(sizes.key_tile());
  float* rows_of_keys = scratch.Take(sizes.key_tile());
  float* k_along_rows = scratch.Take(sizes.key_tile());
  float* q = scratch.Take(sizes.key_tile());
  float* d_out = scratch.Take(sizes.key_tile());
  float* dk = scratch.Take(sizes.key_tile());
  float* dv = scratch.Take(sizes.key_tile());
  float* p = scratch.Take(block * ks);
  float* ds = scratch.Take(block * ks);
  float* p_along_rows = scratch.Take(block * ks);
  float* ds_along_rows = scratch.Take(block * ks);
  float* q_along_rows = scratch.Take(block * hs);
  float* d_out_along_rows = scratch.Take(block * hs);
  float* dq = scratch.Take(block * hs);
  float* inverse_sums = scratch.Take(block);

  NextTile<T> next(in.next, grad.d_out);
  LoadKeys<Format>(in, sizes, in.v, in.constant_v, rows_of_keys);
  TransposeTile(rows_of_keys, keys, Format::Depth(d), row_stride, v_transposed, ks);
  LoadKeys<Format>(in, sizes, in.k, in.constant_k, rows_of_keys);
  TransposeTile(rows_of_keys, keys, Format::Depth(d), row_stride, k_transposed, ks);
  const Factor k = Format::AlongRows(rows_of_keys, keys, d, k_along_rows);
  LoadTokens<Format>(in, in.q, in.stride, q);
  next.Prefetch();
  LoadTokens<Format>(in, grad.d_out + in.out_offset, in.out_stride, d_out);
  for (int64_t begin = 0; begin < in.num_tokens; begin += block) {
    const int64_t rows = std::min(block, in.num_tokens - begin);
    const Factor block_q = Factor{q, row_stride}.Row(begin);
    const Factor block_d_out = Factor{d_out, row_stride}.Row(begin);
    Logits<Format>(in, sizes, begin, rows, {q, row_stride}, {k_transposed, ks}, p);
    ExpLogits(in, sizes, rows, p, inverse_sums);
    next.Prefetch();
    SmallProduct<Left::kPlain, Format>(rows, keys, Format::Depth(d), block_d_out,
                                       {v_transposed, ks}, ds, ks, false);
    next.Prefetch();
    for (int64_t i = 0; i < rows; ++i) {
      SoftmaxBackwardRow(inverse_sums[i], ks, p + i * ks, ds + i * ks);
    }
    if (grad.d_bias != nullptr) AddVectors(ds, rows * ks, grad.d_bias + begin * ks);
    next.Prefetch();
    SmallProduct<Left::kTransposed, Format>(
        keys, d, Format::Depth(rows), Format::AlongRowsFromFloats(p, rows, ks, p_along_rows),
        Format::AlongRows(block_d_out.data, rows, d, d_out_along_rows), dv, hs, begin > 0);
    next.Prefetch();
    SmallProduct<Left::kTransposed, Format>(
        keys, d, Format::Depth(rows), Format::AlongRowsFromFloats(ds, rows, ks, ds_along_rows),
        Format::AlongRows(block_q.data, rows, d, q_along_rows), dk, hs, begin > 0);
    next.Prefetch();
    SmallProduct<Left::kPlain, Format>(rows, d, Format::Depth(keys),
                                       Format::FromFloats(ds, rows, ks), k, dq, hs, false);
    for (int64_t i = 0; i < rows; ++i) {
      StoreRow(dq + i * hs, d, in.scale, grad.dq + in.tokens[begin + i] * in.stride);
    }
  }
  StoreKeyGradients(in, sizes, dk, in.scale, grad.dk, grad.d_constant_k);
  StoreKeyGradients(in, sizes, dv, 1.0f, grad.dv, grad.d_constant_v);
}

// Gradients of TileForward.
template <typename T>
void TileBackward(const TileInput<T>& in, const TileGradient<T>& grad) {
  WithTileFormat<T>([&](auto format) HWY_ATTR { TileBackwardIn<decltype(format)>(in, grad); });
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_ATTENTION_TILE_INL_H_
