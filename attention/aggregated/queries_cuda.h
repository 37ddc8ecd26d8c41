// A tile of queries of one head of aggregated attention on a GPU, up to the probabilities: what the
// forward and the backward kernel share. Included by aggregated_cuda.cu alone.
#ifndef TESSERA_ATTENTION_AGGREGATED_QUERIES_CUDA_H_
#define TESSERA_ATTENTION_AGGREGATED_QUERIES_CUDA_H_

#include <cstdint>

#include "attention/aggregated/aggregated_kernel.h"
#include "attention/tile_cuda.h"
#include "core/cuda/device.h"

namespace tessera {

inline constexpr int kChunk = 32;  // pooled keys in shared memory
inline constexpr float kMinNorm = 1e-12f;

struct Problem {
  int64_t batch, positions, q_stride, kv_stride, pooled_stride, channels;
  int height, width, num_heads, d, window, radius, slots, pooled;
  int queries;  // of a tile
  int tiles = 0;
  int64_t images = 0;  // of a block
  const float* temperature;
  const float* query_embedding;
  const float* local_bias;
  const float* tokens;
  const float* token_bias;
  PositionBiasArgs bias;

  HOST_DEVICE int keys() const { return slots + pooled; }
  HOST_DEVICE int d_stride() const { return TileStride(d); }
  HOST_DEVICE int key_stride() const { return TileStride(keys()); }
  HOST_DEVICE int slot_stride() const { return TileStride(slots); }
  HOST_DEVICE int chunks() const { return (pooled + kChunk - 1) / kChunk; }
  // Sums of a block for parameters: query embedding, temperature, local bias, tokens, token bias.
  HOST_DEVICE int sums() const { return d + 1 + slots + d * slots + slots; }
};

template <typename T>
struct Maps {
  const T* q;
  const T* k;
  const T* v;
  const T* pooled_k;
  const T* pooled_v;
};

DEVICE float Softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

// A tile of queries of one head.
class Tile {
 public:
  DEVICE explicit Tile(const Problem& p)
      : p_(p),
        head_(static_cast<int>(blockIdx.x) % p.num_heads),
        first_(static_cast<int>(blockIdx.x) / p.num_heads * p.queries) {}
  DEVICE int head() const { return head_; }
  DEVICE int index() const { return first_ / p_.queries; }
  DEVICE int count() const {
    const int rest = static_cast<int>(p_.positions) - first_;
    return rest < p_.queries ? rest : p_.queries;
  }
  DEVICE int Position(int i) const { return first_ + i; }
  // The position in slot `slot` around query i; negative outside of the map.
  DEVICE int Neighbour(int i, int slot) const {
    const int y = Position(i) / p_.width + slot / p_.window - p_.radius;
    const int x = Position(i) % p_.width + slot % p_.window - p_.radius;
    return y < 0 || y >= p_.height || x < 0 || x >= p_.width ? -1 : y * p_.width + x;
  }
  DEVICE float Length(int i) const {
    int inside = 0;
    for (int slot = 0; slot < p_.slots; ++slot) inside += Neighbour(i, slot) >= 0 ? 1 : 0;
    return logf(static_cast<float>(inside + p_.pooled));
  }
  DEVICE int64_t Bias(int i, int key) const {
    const int position = Position(i);
    return p_.bias.key_offsets[key] + position / p_.width * p_.bias.row_stride +
           position % p_.width;
  }
  // Offset of the head's channels in a row of a map.
  DEVICE int64_t Row(int64_t image, int position, int64_t stride) const {
    return (image * p_.positions + position) * stride + head_ * p_.d;
  }
  DEVICE int64_t PooledRow(int64_t image, int key) const {
    return (image * p_.pooled + key) * p_.pooled_stride + head_ * p_.d;
  }

 private:
  const Problem& p_;
  int head_, first_;
};

// What lies in shared memory.
struct Shared {
  DEVICE Shared(const Problem& p, float* memory)
      : q_hat(memory),
        q_scaled(q_hat + p.queries * p.d_stride()),
        result(q_scaled + p.queries * p.d_stride()),
        chunk(result + p.queries * p.d_stride()),
        logits(chunk + kChunk * p.d_stride()),
        dynamic(logits + p.queries * p.key_stride()),
        q_inverse(dynamic + p.queries * p.slot_stride()),
        length(q_inverse + p.queries),
        chunk_inverse(length + p.queries),
        end(chunk_inverse + kChunk) {}
  static int64_t Floats(const Problem& p) {
    return int64_t{3} * p.queries * p.d_stride() + int64_t{kChunk} * p.d_stride() +
           int64_t{p.queries} * (p.key_stride() + p.slot_stride() + 2) + kChunk;
  }
  float* q_hat;     // [queries, d]
  float* q_scaled;  // [queries, d]
  float* result;    // [queries, d]
  float* chunk;     // [kChunk, d]: pooled keys or values
  float* logits;    // [queries, keys], then probabilities
  float* dynamic;   // [queries, slots]
  float* q_inverse;
  float* length;
  float* chunk_inverse;
  float* end;
};

// Rows of d floats in shared memory, divided by their norms, a warp each.
DEVICE void NormalizeRows(const Problem& p, int rows, float* tile, float* inverses) {
  for (int i = WarpIndex(); i < rows; i += kTileWarps) {
    float* row = tile + i * p.d_stride();
    float squares = 0;
    for (int c = Lane(); c < p.d; c += kWarpSize) squares = fmaf(row[c], row[c], squares);
    const float inverse = 1.0f / fmaxf(sqrtf(WarpSum(squares)), kMinNorm);
    for (int c = Lane(); c < p.d; c += kWarpSize) row[c] *= inverse;
    if (Lane() == 0) inverses[i] = inverse;
  }
}

// Loads keys or values [begin, begin + kChunk) of an image; returns how many there are.
template <typename T>
DEVICE int LoadChunk(const Problem& p, const Tile& tile, const Shared& s, const T* from,
                     int64_t image, int begin) {
  const int n = p.pooled - begin < kChunk ? p.pooled - begin : kChunk;
  BLOCK_SYNC();  // the chunk before has been read
  LoadTile<1>(s.chunk, n, p.d, [&](int j, int c, float(&v)[1]) {
    v[0] = LoadFloat(from + tile.PooledRow(image, begin + j) + c);
  });
  BLOCK_SYNC();
  return n;
}

// The inner product of a shared row with d elements of memory.
template <typename T>
DEVICE float DotRow(const Problem& p, const float* a, const T* b) {
  float dot = 0;
  for (int c = 0; c < p.d; ++c) dot = fmaf(a[c], LoadFloat(b + c), dot);
  return dot;
}
template <typename T>
DEVICE float InverseNorm(const Problem& p, const T* row) {
  float squares = 0;
  for (int c = 0; c < p.d; ++c) {
    const float v = LoadFloat(row + c);
    squares = fmaf(v, v, squares);
  }
  return 1.0f / fmaxf(sqrtf(squares), kMinNorm);
}

// Probabilities and dynamic weights of the tile's queries, up to and including the last barrier.
template <typename T>
DEVICE void Attend(const Problem& p, const Tile& tile, const Shared& s, const Maps<T>& maps,
                   int64_t image) {
  const int n = tile.count(), thread = static_cast<int>(threadIdx.x);
  const float softplus = Softplus(p.temperature[tile.head()]);
  BLOCK_SYNC();
  LoadTile<1>(s.q_hat, n, p.d, [&](int i, int c, float(&v)[1]) {
    v[0] = LoadFloat(maps.q + tile.Row(image, tile.Position(i), p.q_stride) + c);
  });
  for (int i = thread; i < n; i += kTileThreads) s.length[i] = tile.Length(i);
  BLOCK_SYNC();
  NormalizeRows(p, n, s.q_hat, s.q_inverse);
  BLOCK_SYNC();
  for (int e = thread; e < n * p.d; e += kTileThreads) {
    const int i = e / p.d, c = e % p.d, at = i * p.d_stride() + c;
    const float q = s.q_hat[at] + p.query_embedding[tile.head() * p.d + c];
    s.q_scaled[at] = q * (softplus * s.length[i]);
  }
  BLOCK_SYNC();
  for (int e = thread; e < n * p.slots; e += kTileThreads) {
    const int i = e / p.slots, slot = e % p.slots, neighbour = tile.Neighbour(i, slot);
    float logit = -INFINITY;
    if (neighbour >= 0) {
      const T* k = maps.k + tile.Row(image, neighbour, p.kv_stride);
      logit = DotRow(p, s.q_scaled + i * p.d_stride(), k) * InverseNorm(p, k) +
              p.local_bias[tile.head() * p.slots + slot];
    }
    s.logits[i * p.key_stride() + slot] = logit;
    float weight = p.token_bias[tile.head() * p.slots + slot];
    for (int c = 0; c < p.d; ++c) {
      weight = fmaf(s.q_hat[i * p.d_stride() + c],
                    p.tokens[(tile.head() * p.d + c) * p.slots + slot], weight);
    }
    s.dynamic[i * p.slot_stride() + slot] = weight;
  }
  const float* bias = p.bias.values + tile.head() * p.bias.head_stride;
  for (int begin = 0; begin < p.pooled; begin += kChunk) {
    const int keys = LoadChunk(p, tile, s, maps.pooled_k, image, begin);
    NormalizeRows(p, keys, s.chunk, s.chunk_inverse);
    BLOCK_SYNC();
    ProductTransposedB(n, keys, p.d, {s.q_scaled, p.d_stride()}, {s.chunk, p.d_stride()},
                       [&](int i, int j, float value) {
                         s.logits[i * p.key_stride() + p.slots + begin + j] =
                             value + bias[tile.Bias(i, begin + j)];
                       });
  }
  BLOCK_SYNC();
  for (int i = WarpIndex(); i < n; i += kTileWarps) {
    SoftmaxRow(s.logits + i * p.key_stride(), p.keys(), 1.0f);
  }
  BLOCK_SYNC();
}

}  // namespace tessera

#endif  // TESSERA_ATTENTION_AGGREGATED_QUERIES_CUDA_H_
