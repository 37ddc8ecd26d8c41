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

// Rows of the tile's tokens into `to` [num_tokens, head_stride].
template <typename T>
void LoadTokens(const TileInput<T>& in, const T* from, float* to) {
  const int64_t head_stride = RoundToVectors(in.head_dim);
  for (int64_t i = 0; i < in.num_tokens; ++i) {
    LoadRow(from + in.tokens[i] * in.stride, in.head_dim, head_stride, 1.0f, to + i * head_stride);
  }
}

// Keys or values into `to` [key_stride, head_stride]: tokens, the constant one, and zero rows.
template <typename T>
void LoadKeys(const TileInput<T>& in, const TileSizes& sizes, const T* from, const float* constant,
              float* to) {
  LoadTokens(in, from, to);
  float* rest = to + in.num_tokens * sizes.head_stride;
  std::fill(rest, to + sizes.key_tile(), 0.0f);
  if (in.constant_count > 0 && constant != nullptr) {
    LoadRow(constant, in.head_dim, sizes.head_stride, 1.0f, rest);
  }
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

// out = softmax(scale * q k^T) v for the tile's tokens.
template <typename T>
void TileForward(const TileInput<T>& in, T* out) {
  const TileSizes sizes(in.num_tokens, in.num_keys(), in.head_dim);
  ScratchFloats scratch(4 * sizes.key_tile() +
                        sizes.block_rows * (sizes.key_stride + sizes.head_stride + 16));
  float* k_transposed = scratch.Take(sizes.key_tile());
  float* v = scratch.Take(sizes.key_tile());
  float* q = scratch.Take(sizes.key_tile());
  float* exps = scratch.Take(sizes.block_rows * sizes.key_stride);
  float* block_out = scratch.Take(sizes.block_rows * sizes.head_stride);
  float* inverse_sums = scratch.Take(sizes.block_rows);

  NextTile<T> next(in.next);
  LoadKeys(in, sizes, in.k, in.constant_k, v);
  next.Prefetch();
  TransposeTile(v, in.num_keys(), in.head_dim, sizes.head_stride, k_transposed, sizes.key_stride);
  next.Prefetch();
  LoadKeys(in, sizes, in.v, in.constant_v, v);
  next.Prefetch();
  LoadTokens(in, in.q, q);
  next.Prefetch();
  for (int64_t begin = 0; begin < in.num_tokens; begin += sizes.block_rows) {
    const int64_t rows = std::min(sizes.block_rows, in.num_tokens - begin);
    SmallProduct<Left::kPlain>(rows, in.num_keys(),
                               {.depth = in.head_dim,
                                .a = q + begin * sizes.head_stride,
                                .lda = sizes.head_stride,
                                .b = k_transposed,
                                .ldb = sizes.key_stride,
                                .c = exps,
                                .ldc = sizes.key_stride,
                                .accumulate = false});
    next.Prefetch();
    ExpLogits(in, sizes, rows, exps, inverse_sums);
    next.Prefetch();
    SmallProduct<Left::kPlain>(rows, in.head_dim,
                               {.depth = in.num_keys(),
                                .a = exps,
                                .lda = sizes.key_stride,
                                .b = v,
                                .ldb = sizes.head_stride,
                                .c = block_out,
                                .ldc = sizes.head_stride,
                                .accumulate = false});
    next.Prefetch();
    for (int64_t i = 0; i < rows; ++i) {
      StoreRow(block_out + i * sizes.head_stride, in.head_dim, inverse_sums[i],
               out + in.out_offset + in.tokens[begin + i] * in.out_stride);
    }
  }
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
};

template <typename T>
void StoreKeyGradients(const TileInput<T>& in, const TileSizes& sizes, const float* from,
                       float factor, T* to, float* constant) {
  for (int64_t i = 0; i < in.num_tokens; ++i) {
    StoreRow(from + i * sizes.head_stride, in.head_dim, factor, to + in.tokens[i] * in.stride);
  }
  if (in.constant_count > 0)
    StoreRow(from + in.num_tokens * sizes.head_stride, in.head_dim, factor, constant);
}

// Gradients of TileForward.
template <typename T>
void TileBackward(const TileInput<T>& in, const TileGradient<T>& grad) {
  const TileSizes sizes(in.num_tokens, in.num_keys(), in.head_dim);
  const int64_t hs = sizes.head_stride, ks = sizes.key_stride;
  ScratchFloats scratch(8 * sizes.key_tile() + sizes.block_rows * (2 * ks + hs + 16));
  float* k_transposed = scratch.Take(sizes.key_tile());
  float* v_transposed = scratch.Take(sizes.key_tile());
  float* k = scratch.Take(sizes.key_tile());
  float* q = scratch.Take(sizes.key_tile());
  float* d_out = scratch.Take(sizes.key_tile());
  float* dk = scratch.Take(sizes.key_tile());
  float* dv = scratch.Take(sizes.key_tile());
  float* p = scratch.Take(sizes.block_rows * ks);
  float* ds = scratch.Take(sizes.block_rows * ks);
  float* dq = scratch.Take(sizes.block_rows * hs);
  float* inverse_sums = scratch.Take(sizes.block_rows);

  NextTile<T> next(in.next, grad.d_out);
  LoadKeys(in, sizes, in.v, in.constant_v, k);
  TransposeTile(k, in.num_keys(), in.head_dim, hs, v_transposed, ks);
  LoadKeys(in, sizes, in.k, in.constant_k, k);
  TransposeTile(k, in.num_keys(), in.head_dim, hs, k_transposed, ks);
  LoadTokens(in, in.q, q);
  next.Prefetch();
  for (int64_t i = 0; i < in.num_tokens; ++i) {
    LoadRow(grad.d_out + in.out_offset + in.tokens[i] * in.out_stride, in.head_dim, hs, 1.0f,
            d_out + i * hs);
  }
  for (int64_t begin = 0; begin < in.num_tokens; begin += sizes.block_rows) {
    const int64_t rows = std::min(sizes.block_rows, in.num_tokens - begin);
    const float* block_q = q + begin * hs;
    const float* block_d_out = d_out + begin * hs;
    SmallProduct<Left::kPlain>(rows, in.num_keys(),
                               {.depth = in.head_dim,
                                .a = block_q,
                                .lda = hs,
                                .b = k_transposed,
                                .ldb = ks,
                                .c = p,
                                .ldc = ks,
                                .accumulate = false});
    ExpLogits(in, sizes, rows, p, inverse_sums);
    next.Prefetch();
    SmallProduct<Left::kPlain>(rows, in.num_keys(),
                               {.depth = in.head_dim,
                                .a = block_d_out,
                                .lda = hs,
                                .b = v_transposed,
                                .ldb = ks,
                                .c = ds,
                                .ldc = ks,
                                .accumulate = false});
    next.Prefetch();
    for (int64_t i = 0; i < rows; ++i) {
      SoftmaxBackwardRow(inverse_sums[i], ks, p + i * ks, ds + i * ks);
    }
    next.Prefetch();
    SmallProduct<Left::kTransposed>(in.num_keys(), in.head_dim,
                                    {.depth = rows,
                                     .a = p,
                                     .lda = ks,
                                     .b = block_d_out,
                                     .ldb = hs,
                                     .c = dv,
                                     .ldc = hs,
                                     .accumulate = begin > 0});
    next.Prefetch();
    SmallProduct<Left::kTransposed>(in.num_keys(), in.head_dim,
                                    {.depth = rows,
                                     .a = ds,
                                     .lda = ks,
                                     .b = block_q,
                                     .ldb = hs,
                                     .c = dk,
                                     .ldc = hs,
                                     .accumulate = begin > 0});
    next.Prefetch();
    SmallProduct<Left::kPlain>(rows, in.head_dim,
                               {.depth = in.num_keys(),
                                .a = ds,
                                .lda = ks,
                                .b = k,
                                .ldb = hs,
                                .c = dq,
                                .ldc = hs,
                                .accumulate = false});
    for (int64_t i = 0; i < rows; ++i) {
      StoreRow(dq + i * hs, in.head_dim, in.scale, grad.dq + in.tokens[begin + i] * in.stride);
    }
  }
  StoreKeyGradients(in, sizes, dk, in.scale, grad.dk, grad.d_constant_k);
  StoreKeyGradients(in, sizes, dv, 1.0f, grad.dv, grad.d_constant_v);
}

}  // namespace tessera::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // TESSERA_ATTENTION_TILE_INL_H_
